"""The text of the systemd user unit. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def unit_text(
    command: Sequence[str], *, description: str, environment: Mapping[str, str], stop_timeout_s: float
) -> str:
    """A unit that keeps `command` running.

    Args:
        command: The program by its absolute path, and its arguments.
        environment: Variables that say where things lie; never secrets, for units can be read by others.
        stop_timeout_s: How long it may take to end, its drain included.

    The restrictions are those that a user's manager can set by itself and that a GPU's driver and its
    just-in-time compilers live with: no private devices, no ban on memory that is both written and executed,
    no namespaces of its own, which hardened systems deny to users.
    """
    variables = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in sorted(environment.items())
    )
    return f"""\
[Unit]
Description={description.replace("%", "%%")}
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
FileDescriptorStoreMax=1
ExecStart={" ".join(_quoted(word, command=True) for word in command)}
{variables}\
Restart=on-failure
RestartSec=3
TimeoutStartSec=120
TimeoutStopSec={stop_timeout_s:g}
KillMode=mixed
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""


def _quoted(word: str, *, command: bool = False) -> str:
    """A word as systemd reads it back: specifiers doubled, and in commands the sign of variables too."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    if command:
        word = word.replace("$", "$$")
    return word if re.fullmatch(r"[\w@%+=:,./\\$-]+", word) and "\\" not in word else f'"{word}"'
