"""The book itself: whether it is fresh, its Sphinx extension, a new chapter, what it takes to publish it."""
