"""TransformerFAM (arXiv 2404.09173)."""
