"""crossdiff: what changed inside a language model when it was fine-tuned."""
