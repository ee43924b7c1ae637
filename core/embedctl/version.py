"""The version of embedctl, for parts that must not import the whole and where no package is installed."""

__version__ = "0.1.0"
