"""Labels for latents and the record of how they were made."""
