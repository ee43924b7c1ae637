"""The console in a browser: a server on this machine that runs one console per page."""

from __future__ import annotations

from typing import Final

DEFAULT_PORT: Final = 11436
"""The next one after the gateway's."""
