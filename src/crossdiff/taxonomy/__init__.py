"""The frozen taxonomy: its categories, how it is read, hashed and extended."""
