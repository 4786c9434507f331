"""Benchmarks: both sides in one run, one JSON object."""
