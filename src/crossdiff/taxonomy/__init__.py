"""Categories, assignment, deltas, agreement."""
