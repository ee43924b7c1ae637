"""Getting alerts to a command or a webhook, on a thread of its own: the watch never waits for either."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from embedctl.environment import without_secrets

log = logging.getLogger(__name__)

_WAITING: Final = 32
_ATTEMPTS: Final = 2
"""Of a webhook; a command runs once."""

Payload = Mapping[str, Any]


class Delivery:
    """Sends each alert once, in their order.

    Args:
        command: Program and arguments; gets the alert as JSON on its standard input. No shell is involved,
            and embedctl's own secrets are not in its environment.
        webhook: Gets the alert as JSON by POST. Its address may be a secret and is never told.
        timeout: Seconds for the command, and for each attempt of the webhook.
        failed: Told in a few words why an alert did not arrive; called on the delivery's thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        webhook: str | None,
        *,
        timeout: float,
        failed: Callable[[str], None],
    ) -> None:
        self._command = tuple(command)
        self._webhook = webhook
        self._timeout = timeout
        self._failed = failed
        self._waiting: queue.Queue[Payload | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)

    def start(self) -> None:
        """Nothing is started where there is nobody to tell."""
        if self._command or self._webhook:
            self._thread.start()

    def send(self, payload: Payload) -> None:
        """Queue an alert. Returns at once."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put_nowait(payload)
        except queue.Full:
            self._failed("too many alerts wait for the command or the webhook")

    def stop(self) -> None:
        """Send what waits, for as long as one alert may take."""
        if self._thread.is_alive():
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(self._timeout)

    def _work(self) -> None:
        while (payload := self._waiting.get()) is not None:
            for deliver in (self._run, self._post):
                try:
                    why = deliver(payload)
                except Exception as error:  # what a plugged-in program does must not end the thread
                    log.exception("an alert could not be delivered")
                    why = type(error).__name__
                if why:
                    self._failed(why)

    def _run(self, payload: Payload) -> str:
        """Why it failed; empty when it worked."""
        if not self._command:
            return ""
        name = self._command[0]
        try:
            ended = subprocess.run(  # argv from the user's own settings
                self._command,
                input=json.dumps(payload).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=without_secrets(os.environ),
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{name} did not end within {self._timeout:g} s"
        except OSError as error:
            return f"{name} could not be started: {error.strerror}"
        return f"{name} ended with code {ended.returncode}" if ended.returncode else ""

    def _post(self, payload: Payload) -> str:
        if not self._webhook:
            return ""
        import httpx  # costs start-up time, and few alerts are raised

        why = ""
        for _ in range(_ATTEMPTS):
            try:
                answer = httpx.post(self._webhook, json=payload, timeout=self._timeout)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = f"the webhook could not be reached: {type(error).__name__}"
                continue
            if answer.is_success:
                return ""
            why = f"the webhook answered {answer.status_code}"
            if answer.status_code < 500:
                break
        return why
