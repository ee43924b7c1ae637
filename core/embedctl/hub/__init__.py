"""Models on disk: look up, download, verify, convert and remove, with huggingface_hub.

This package never imports torch; the conversion of pickled weights runs in a process of its own.
"""

from embedctl.hub.model_hub import ModelHub

__all__ = ["ModelHub"]
