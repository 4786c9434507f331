"""The plan: which steps an experiment needs, in which order, under which keys."""
