"""From the documents that fire a latent to a label: annotators, prompts, ledger, scores."""
