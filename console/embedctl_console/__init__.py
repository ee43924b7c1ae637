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

    `slow` is for a line of some 1,000 bytes a second: news are drawn every few seconds and nothing glides;
    keys are answered at once all the same.
    """
    from embedctl_console.app import ConsoleApp
    from embedctl_console.bridge import FLUSH_EVERY, FLUSH_SELDOM

    app = ConsoleApp(open_engine, demo=demo, flush_every=FLUSH_SELDOM if slow else FLUSH_EVERY)
    if slow:
        app.animation_level = "none"
    try:
        app.run()
    finally:
        if not app.leaving:
            app.close_engine()
    return app.return_code or 0
