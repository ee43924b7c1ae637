"""Drives the user unit through systemctl and journalctl."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedctl.errors import ServiceError


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of the unit."""

    installed: bool
    active: str
    """`active`, `inactive`, `failed`, `activating`, …"""
    detail: str
    """`running`, `dead`, `exit-code`, …"""
    enabled: bool
    """It is started when the user's manager starts."""
    pid: int | None


class UserUnit:
    """One unit of the user's systemd.

    Every call may raise `ServiceError`: there is no systemd, its manager for this user cannot be reached,
    or it refused.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """
        Args:
            name: With its suffix, such as `embedctl.service`.
            folder: Where the user's units lie; None: systemd's own place.
        """
        self.name = name
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.file = (folder or config / "systemd" / "user") / name

    def install(self, text: str) -> None:
        """Write the unit and have it started with the user's manager; if that refuses, all is as before."""
        _tool("systemctl")
        try:
            before = self.file.read_bytes() if self.file.exists() else None
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ServiceError(
                f"{self.file} cannot be written",
                why=error.strerror or str(error),
                remedy="check the folder's rights",
            ) from error
        try:
            self._systemctl("daemon-reload")
            self._systemctl("enable", self.name)
        except ServiceError:
            if before is None:
                self.file.unlink(missing_ok=True)
            else:
                self.file.write_bytes(before)
            with suppress(ServiceError):  # a manager that cannot be reached has not read it either
                self._systemctl("daemon-reload")
            raise

    def uninstall(self) -> None:
        """Stop the unit and remove it. Safe when there is none."""
        if self.file.exists():
            self._systemctl("disable", "--now", self.name)
            self.file.unlink()
        self._systemctl("daemon-reload")

    def start(self) -> None:
        """Start the unit and wait until it says that it is ready."""
        self._check_installed()
        self._systemctl("start", self.name)

    def restart(self) -> None:
        """Start the unit anew, as after an upgrade: who connects meanwhile waits for the new process."""
        self._check_installed()
        self._systemctl("restart", self.name)

    def stop(self) -> None:
        """Stop the unit and wait for its end."""
        self._check_installed()
        self._systemctl("stop", self.name)

    def state(self) -> UnitState:
        wanted = "LoadState,ActiveState,SubState,UnitFileState,MainPID"
        text = self._systemctl("show", self.name, f"--property={wanted}")
        found = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
        pid = found.get("MainPID", "0")
        return UnitState(
            installed=found.get("LoadState") == "loaded",
            active=found.get("ActiveState", "unknown"),
            detail=found.get("SubState", "unknown"),
            enabled=found.get("UnitFileState") == "enabled",
            pid=int(pid) if pid.isdigit() and pid != "0" else None,
        )

    def lingers(self) -> bool:
        """Whether the user's manager runs without a login, so that the service starts with the machine.

        Never raises: logind fails for a user whom it does not know, and who thus does not linger.
        """
        user = str(os.getuid())
        with suppress(ServiceError):
            return _run(["loginctl", "show-user", user, "--property=Linger", "--value"]).strip() == "yes"
        return False

    def logs(self, *, lines: int, follow: bool) -> int:
        """Let journalctl print the unit's log to this process's output; returns its exit code."""
        words = [_tool("journalctl"), "--user", f"--unit={self.name}", f"--lines={lines}", "--no-pager"]
        return subprocess.run([*words, *(["--follow"] if follow else [])], check=False).returncode

    def _check_installed(self) -> None:
        _tool("systemctl")
        if not self.file.exists():
            raise ServiceError(
                "The service is not installed",
                why=f"there is no {self.file}",
                remedy="`embedctl service install` writes it; `embedctl serve` runs without it",
            )

    def _systemctl(self, *words: str) -> str:
        return _run([_tool("systemctl"), "--user", *words])


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of a shell's variables those that say where files lie; a unit has none of the shell's."""
    folders = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    names = ("EMBEDCTL_HOME", "HF_HOME", "HF_HUB_CACHE", *folders)
    return {name: environment[name] for name in names if environment.get(name)}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServiceError(
            f"{name} was not found",
            why="this system is not run by systemd",
            remedy="run `embedctl serve` under what supervises programs here, or in tmux",
        )
    return found


def _run(words: list[str]) -> str:
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ServiceError(f"{words[0]} cannot be run", why=error.strerror or str(error)) from error
    if ended.returncode != 0:
        said = ended.stderr.strip() or f"it ended with exit code {ended.returncode}"
        no_manager = "bus" in said.lower()
        raise ServiceError(
            f"{' '.join([Path(words[0]).name, *words[1:]])} failed",
            why=said,
            remedy="log in as this user (not with su or sudo), or run `embedctl serve` without systemd"
            if no_manager
            else "`embedctl service logs` shows what the service said",
        )
    return ended.stdout
