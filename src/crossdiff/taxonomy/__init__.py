"""The frozen taxonomy, the change of its categories between two pairs, and how far to trust it."""
