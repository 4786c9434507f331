"""Toy models with planted differences, against which results are checked."""
