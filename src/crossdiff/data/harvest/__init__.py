"""Harvest: the forward pass of one model over a token set, and its rows on disk or on the fly."""
