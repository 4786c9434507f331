"""Documents -> tokens -> activations -> batches."""
