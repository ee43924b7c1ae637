"""embedctl: run, compare and switch the embedding backends of one machine."""

__version__ = "0.1.0"
