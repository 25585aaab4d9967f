"""What one chapter alone needs: a package a paper, imported by its notebook and its tests."""
