"""Published crosscoders: one module per checkpoint format, beside find.py, read.py and write.py."""
