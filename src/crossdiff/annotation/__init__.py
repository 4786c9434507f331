"""Labels of latents from the documents that fire them: annotators, prompts, scores."""
