"""Activations and tokens that another tool has stored: opened in place, checked, and taken over."""
