"""What can be said about a model's folder before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from embedctl.errors import ModelMissingError


def require_model(folder: str | Path) -> Path:
    """The folder as a path.

    Raises:
        ModelMissingError: It is neither a sentence-transformers nor a transformers folder.
    """
    path = Path(folder)
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        raise ModelMissingError(
            f"There is no model in {path}",
            why="neither config.json nor modules.json is there",
            remedy="fetch it with `embedctl models download`",
        )
    return path
