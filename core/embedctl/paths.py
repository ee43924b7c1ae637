"""Where things lie: settings, history, logs. Models lie in the Hub's own cache (`HF_HOME`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_LONGEST_SOCKET: Final = 100
"""Bytes of a path that every system takes as a socket's address."""


@dataclass(frozen=True, slots=True)
class Paths:
    config_file: Path
    data_dir: Path
    cache_dir: Path
    log_dir: Path
    runtime_dir: Path
    """Where the running process can be reached; empty after a restart of the machine."""

    @property
    def socket(self) -> Path:
        """Where a running service or console listens for its own user."""
        path = self.runtime_dir / "control.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET:
            return path
        import hashlib
        import tempfile

        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"embedctl-{os.getuid()}" / f"{digest}.sock"

    @property
    def database(self) -> Path:
        return self.data_dir / "history.db"

    @property
    def token_budgets(self) -> Path:
        """What `embedctl tune` has measured."""
        return self.data_dir / "token-budgets.json"

    @property
    def references(self) -> Path:
        """What complete loads of models leave for quicker ones."""
        return self.cache_dir / "references"

    @property
    def exports_dir(self) -> Path:
        """Where CSV files and screenshots go unless a place is named."""
        return self.data_dir / "exports"

    @classmethod
    def in_folder(cls, home: Path) -> Self:
        """Everything under one folder (`EMBEDCTL_HOME`)."""
        return cls(
            config_file=home / "config.toml",
            data_dir=home / "data",
            cache_dir=home / "cache",
            log_dir=home / "log",
            runtime_dir=home / "run",
        )

    @classmethod
    def standard(cls) -> Self:
        """The platform's folders (XDG on Linux)."""
        from platformdirs import PlatformDirs  # costs start-up time, and EMBEDCTL_HOME does without it

        dirs = PlatformDirs("embedctl", appauthor=False)
        return cls(
            config_file=dirs.user_config_path / "config.toml",
            data_dir=dirs.user_data_path,
            cache_dir=dirs.user_cache_path,
            log_dir=dirs.user_log_path,
            runtime_dir=dirs.user_runtime_path,
        )

    @classmethod
    def find(cls, *, demo: bool = False) -> Self:
        """`EMBEDCTL_HOME` if set, else the platform's folders; the demo has a folder of its own in either."""
        home = os.environ.get("EMBEDCTL_HOME")
        if home:
            root = Path(home).expanduser()
            return cls.in_folder(root / "demo" if demo else root)
        standard = cls.standard()
        return cls.in_folder(standard.data_dir / "demo") if demo else standard
