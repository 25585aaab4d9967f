"""Hallucination-Free? Legal RAG (arXiv 2405.20362)."""
