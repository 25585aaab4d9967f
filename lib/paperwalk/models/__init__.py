"""Models that several chapters share, each readable top to bottom in one file."""
