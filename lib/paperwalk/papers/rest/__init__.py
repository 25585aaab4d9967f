"""ReST (arXiv 2308.08998)."""
