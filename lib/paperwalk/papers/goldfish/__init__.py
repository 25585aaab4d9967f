"""Goldfish loss (arXiv 2406.10209)."""
