"""Toy models and activations whose truth is planted."""
