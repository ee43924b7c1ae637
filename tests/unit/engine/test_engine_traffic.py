from __future__ import annotations

import threading

import pytest

from embedctl.engine.deadline import Deadline
from embedctl.engine.traffic import RATE_WINDOW, WINDOW, Traffic
from embedctl.errors import BackendTimeoutError

FOREVER = Deadline(None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(
    traffic: Traffic, clock: Clock, milliseconds: float, texts: int = 1, backend: str = "native"
) -> None:
    with traffic.request(backend, texts, FOREVER):
        clock.now += milliseconds / 1e3


def test_percentiles_are_values_that_were_measured() -> None:
    clock = Clock()
    traffic = Traffic("native", monotonic=clock)
    for milliseconds in range(1, 21):
        answer(traffic, clock, milliseconds)
    figures = traffic.figures()
    assert figures["native_p50"] == pytest.approx(10)
    assert figures["native_p95"] == pytest.approx(19)


def test_a_backend_without_recent_requests_has_no_figures() -> None:
    clock = Clock()
    traffic = Traffic("native", monotonic=clock)
    answer(traffic, clock, 5)
    traffic.record_probe("ollama", 7.0)
    assert "ollama_p50" not in traffic.figures()
    assert traffic.figures()["ollama_probe"] == 7.0
    clock.now += WINDOW + 1
    assert traffic.figures() == {}


def test_rate_counts_texts_of_the_last_seconds() -> None:
    clock = Clock()
    traffic = Traffic("native", monotonic=clock)
    answer(traffic, clock, 1, texts=1000)
    clock.now += RATE_WINDOW
    answer(traffic, clock, 1, texts=50)
    assert traffic.figures()["native_rate"] == 50 / RATE_WINDOW


def test_a_failed_request_leaves_no_latency_but_is_no_longer_in_flight() -> None:
    traffic = Traffic("native")
    with pytest.raises(ZeroDivisionError), traffic.request(None, 1, FOREVER):
        assert traffic.in_flight("native") == 1
        _ = 1 / 0
    assert traffic.in_flight("native") == 0
    assert "native_p50" not in traffic.figures()


def test_requests_after_the_flip_go_to_the_new_backend_and_the_drain_waits_for_the_old_ones() -> None:
    traffic = Traffic("native")
    with traffic.request(None, 1, FOREVER) as old:
        traffic.flip("ollama")
        with traffic.request(None, 1, FOREVER) as new:
            assert (old.backend, new.backend) == ("native", "ollama")
        assert not traffic.drained("native", 0.0)
    assert traffic.drained("native", 0.0)


def test_held_requests_wait_and_go_where_the_switch_led() -> None:
    traffic = Traffic("native")
    went: list[str] = []
    waiting = threading.Event()

    def ask() -> None:
        waiting.set()
        with traffic.request(None, 1, Deadline(30.0)) as ticket:
            went.append(ticket.backend)

    with traffic.held("native", "ollama"):
        asker = threading.Thread(target=ask)
        asker.start()
        assert waiting.wait(30)
        assert went == []
        traffic.flip("ollama")
    asker.join(30)
    assert went == ["ollama"]


def test_a_held_request_gives_up_after_its_own_timeout() -> None:
    traffic = Traffic("native")
    with (
        traffic.held("native"),
        pytest.raises(BackendTimeoutError, match="held new requests"),
        traffic.request(None, 1, Deadline(0.0)),
    ):
        pass
    assert traffic.in_flight("native") == 0
