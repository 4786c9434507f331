"""The mathematics: torch only, no I/O, no logging."""
