"""The threads that wait for the engine: as many as are needed, no more, and none that outlives its use."""

from __future__ import annotations

import threading

import pytest

from embedctl.gateway.threads import Threads


class Work:
    """A piece of work that waits to be let go."""

    def __init__(self) -> None:
        self.begun, self.go, self.done = threading.Event(), threading.Event(), threading.Event()
        self.thread = ""

    def __call__(self) -> None:
        self.thread = threading.current_thread().name
        self.begun.set()
        assert self.go.wait(10)
        self.done.set()


def test_a_thread_for_each_that_is_under_way_and_used_again() -> None:
    threads, first, second, third = Threads("t"), Work(), Work(), Work()
    for number, work in enumerate((first, second), start=1):
        threads.run(work, at_once=number)
        assert work.begun.wait(10)
    first.go.set()
    assert first.done.wait(10)
    threads.run(third, at_once=2)
    assert third.begun.wait(10)
    assert {first.thread, second.thread, third.thread} == {"t-0", "t-1"} and third.thread == first.thread
    second.go.set()
    third.go.set()
    threads.close()


def test_without_a_further_thread_work_waits_for_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, first, second = Threads("t"), Work(), Work()
    threads.run(first, at_once=1)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    threads.run(second, at_once=2)
    first.go.set()
    second.go.set()
    assert second.done.wait(10) and second.thread == first.thread
    threads.close()


def test_closing_drops_what_waits_and_ends_the_threads() -> None:
    threads, first, second = Threads("closing"), Work(), Work()
    threads.run(first, at_once=1)
    assert first.begun.wait(10)
    threads.run(second, at_once=1)
    threads.close()
    first.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("closing-"):
            thread.join(10)
    assert first.done.is_set() and not second.begun.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("closing-")]
