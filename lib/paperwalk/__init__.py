"""The shared library of Paperwalk, a book of executable paper walkthroughs."""

__version__ = "0.1.0"
