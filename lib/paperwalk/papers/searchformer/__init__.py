"""Searchformer (arXiv 2402.14083)."""
