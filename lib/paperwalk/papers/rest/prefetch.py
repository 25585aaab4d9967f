"""What of the cache this chapter reads: for a machine without a network (`deploy.gpu.pack`)."""

from pathlib import Path

from paperwalk.papers.rest import pairs


def cached() -> list[Path]:
    """The files, made if need be. Raises CorpusError where their packages cannot be had."""
    return [pairs.catalogues()]
