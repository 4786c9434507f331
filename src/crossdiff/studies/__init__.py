"""The studies: one module or package each, with its settings, its runs and its analysis (docs/add_a_study.md)."""
