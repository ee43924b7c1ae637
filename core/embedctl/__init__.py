"""embedctl: run, compare and switch the embedding backends of one machine.

Applications need two names of it:

    from embedctl import EmbeddingService, get_embedding_service
"""

from embedctl.service import EmbeddingService, get_embedding_service
from embedctl.version import __version__

__all__ = ["EmbeddingService", "__version__", "get_embedding_service"]
