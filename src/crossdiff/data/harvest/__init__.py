"""Harvest: forward passes of one model over a token set; rows are stored or computed on the fly."""
