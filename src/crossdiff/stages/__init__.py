"""One module per step: typed inputs to one artifact."""
