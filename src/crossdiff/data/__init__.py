"""Documents, tokens, activation shards."""
