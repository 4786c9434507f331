"""For notebooks and scripts (docs/python.md): a finished run, a pair of models to ask, a small run."""
