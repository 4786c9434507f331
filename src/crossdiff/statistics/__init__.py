"""The change of categories between two pairs: deltas, intervals, p-values, power, nulls, agreement."""
