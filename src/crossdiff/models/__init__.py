"""Language models: loading, pairs, hooks."""
