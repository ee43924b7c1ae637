"""The Textual console over the embedctl engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedctl.engine import EngineFacade


def main(open_engine: Callable[[], EngineFacade], *, demo: bool = False, slow: bool = False) -> int:
    """Run the console until the user leaves it, and return the exit code.

    The first paint does not wait for `open_engine`: it is called once, on a thread, and may take its time.
    An `EmbedctlError` that it raises is shown on the screen. The engine is closed in the end, also when the
    console itself failed.

    `slow` is for a line of some 1,000 bytes a second (see `pace`); without it, that is found out.
    """
    from embedctl_console.app import ConsoleApp

    app = ConsoleApp(open_engine, demo=demo, slow=slow)
    try:
        app.run()
    finally:
        if not app.leaving:
            app.close_engine()
    return app.return_code or 0
