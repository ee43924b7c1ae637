"""What importing the package must not bring along."""

from __future__ import annotations

import subprocess
import sys


def test_the_package_is_cheap_to_import() -> None:
    heavy = ["torch", "transformers", "sentence_transformers", "huggingface_hub", "httpx", "numpy"]
    code = f"import sys, embedctl.hub; print([name for name in {heavy} if name in sys.modules])"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_a_whole_download_never_imports_torch() -> None:
    code = """
import sys, tempfile
from pathlib import Path
from embedctl.demo.hub_server import HubServer
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch) / "served"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    with HubServer({"acme/plain": folder}) as server:
        hub = ModelHub("acme/plain", "main", cache_dir=Path(scratch) / "cache", endpoint=server.endpoint)
        assert hub.download(silent, CancelToken()).complete
        hub.verify(silent, CancelToken())
        assert hub.remove() == 9
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"
