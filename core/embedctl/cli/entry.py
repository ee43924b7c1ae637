"""`embedctl`: without a command the console, with one the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedctl.cli.output import say_error
from embedctl.errors import UsageError

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade

_CONSOLE_OPTIONS = frozenset({"--demo"})
"""What may stand on a command line that still opens the console."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run embedctl and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if set(words) <= _CONSOLE_OPTIONS:
        return _console(demo="--demo" in words)
    from embedctl.cli.app import run

    return run(words)


def _console(*, demo: bool) -> int:
    # Neither typer nor the engine's parts are imported before the first paint.
    if not (
        sys.stdin.isatty() and sys.stderr.isatty()
    ):  # keys come from the one, the screen goes to the other
        say_error(
            UsageError(
                "The console was not opened",
                why="it needs a terminal, and this is a pipe, a file or a job without one",
                remedy="run it in a terminal, or use a command: `embedctl status`, `embedctl --help`",
            )
        )
        return UsageError.exit_code

    import embedctl_console

    def open_engine() -> EngineFacade:
        from embedctl.engine.opening import open_engine

        return open_engine(demo=demo)

    return embedctl_console.main(open_engine, demo=demo)


if __name__ == "__main__":
    sys.exit(main())
