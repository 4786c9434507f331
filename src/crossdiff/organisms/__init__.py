"""Toy models in which differences are planted, so that results can be checked."""
