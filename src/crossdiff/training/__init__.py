"""Lightning shells over core."""
