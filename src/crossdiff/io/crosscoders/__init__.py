"""Published crosscoders: one module per checkpoint format, recognised by their files (read.py, write.py)."""
