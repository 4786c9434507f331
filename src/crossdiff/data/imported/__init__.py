"""Activations and tokens of other tools: opened, checked and copied."""
