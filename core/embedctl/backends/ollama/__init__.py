"""The Ollama backend: somebody else's server, reached over its HTTP API."""

from embedctl.backends.ollama.backend import OllamaBackend

__all__ = ["OllamaBackend"]
