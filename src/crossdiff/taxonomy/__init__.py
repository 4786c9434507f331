"""The frozen taxonomy: categories, reading, hashing and extension."""
