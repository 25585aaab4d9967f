"""Real texts for the chapters, and the packages that they come from."""
