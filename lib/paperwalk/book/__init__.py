"""The book itself: its Sphinx extension, a new chapter, what it takes to publish it."""
