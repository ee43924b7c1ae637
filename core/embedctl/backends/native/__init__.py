"""The native backend: sentence-transformers in a worker process of its own."""

from embedctl.backends.native.backend import NativeBackend

__all__ = ["NativeBackend"]
