"""The end of a console whose terminal, or whose page in a browser, is gone."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedctl_console.app import ConsoleApp


def end_with_terminal(app: ConsoleApp) -> None:
    """From now on the console ends with its terminal; called on the main thread once it is on the screen."""

    def gone(*_: object) -> None:
        """Close the engine and end without a word.

        Nothing can be drawn any more, and the event loop may hang already: once a write to the terminal has
        failed, Textual's writer thread is gone and its queue takes no more. So neither has a part in this.
        """
        app.leaving = True
        threading.Thread(target=close_and_end, name="console-hangup").start()

    def close_and_end() -> None:
        try:
            app.close_engine()
        finally:
            os._exit(128 + signal.SIGHUP)

    def watch_page() -> None:
        """A page's keys come through a pipe, which hangs up when its server was killed; nobody else tells."""
        page = select.poll()
        page.register(sys.stdin.fileno(), 0)
        page.poll()
        gone()

    signal.signal(signal.SIGHUP, gone)
    if app.is_web:
        threading.Thread(target=watch_page, name="console-page", daemon=True).start()
