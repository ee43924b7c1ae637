"""The environment that other programs are started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SECRETS: Final = frozenset(
    {
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HUGGINGFACE_HUB_TOKEN",
        "HF_API_TOKEN",
        "OLLAMA_API_KEY",
        "EMBEDCTL_API_KEY",
        "EMBEDCTL_ALERTS",  # whole sections as JSON, and the webhook's address, which may be a secret
        "EMBEDCTL_ALERTS__WEBHOOK",
    }
)


def without_secrets(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables less those that hold embedctl's own secrets, in whatever case they are written."""
    return {name: value for name, value in inherited.items() if name.upper() not in _SECRETS}
