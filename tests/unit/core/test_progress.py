"""The wish to stop, heeded by the calls that it is for and by no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from embedctl.progress import CancelToken
from embedctl.worker.client import WorkerClient
from embedctl.worker.frames import Frame
from embedctl.worker.protocol import WorkerOptions


def test_a_callback_that_was_taken_off_is_not_called() -> None:
    token, called = CancelToken(), []
    take_off = token.on_cancel(lambda: called.append("first"))
    token.on_cancel(lambda: called.append("second"))
    take_off()
    token.cancel()
    token.cancel()
    take_off()
    assert called == ["second"]
    token.on_cancel(lambda: called.append("late"))()
    assert called == ["second", "late"]


class AtOnce:
    """A channel whose other end answers each frame at once."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client

    def send(self, frame: Frame) -> None:
        self._client._deliver(Frame({"kind": "pong", "id": frame.id}))


def test_requests_that_were_answered_leave_nothing_in_a_token_that_they_share(tmp_path: Path) -> None:
    client = WorkerClient(WorkerOptions("nowhere"), log_file=tmp_path / "log")
    client._channel = cast(Any, AtOnce(client))
    token = CancelToken()
    for _ in range(3):
        client._request({"kind": "ping"}, cancel=token)
    assert not token._callbacks
