"""Hugging Face models: loading, templates, tokenizers, unembedding, generation."""
