"""The studies: a module or package per study, with its settings, runs and analysis (docs/add_a_study.md)."""
