"""How bulk requests make way for queries: the arithmetic, and that the engine is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedctl.errors import BackendUnavailableError
from embedctl.gateway.pace import LATELY_S, Pace
from embedctl.records import EmbedResult
from tests.support.fake_backend import vector_of
from tests.support.gateways import served, vectors


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(texts: int, seconds: float, backend: str = "native") -> EmbedResult:
    return EmbedResult(np.zeros((texts, 4), np.float32), backend, texts, (), (), seconds)


def test_a_pass_of_bulk_takes_a_third_of_a_query_alone() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.asked(200, None) is None
    pace.answered(answer(1, 0.020), 0)
    pace.answered(answer(1, 0.500), 256)  # beside bulk: says nothing of a query alone
    pace.answered(answer(200, 0.400), 0)
    assert pace.asked(200, None) is None  # no query came lately
    assert pace.asked(1, None) is None
    assert pace.asked(200, None) == 3  # 0.3 of 20 ms, of 2 ms each
    pace.answered(answer(200, 1.600), 0)  # small passes cost more for each text: that makes them no smaller
    assert pace.asked(200, None) == 3
    assert pace.asked(200, "ollama") is None  # another backend has a pace of its own
    clock.now += LATELY_S + 1
    assert pace.asked(200, None) is None


def test_a_pass_keeps_one_text_however_slow_the_backend_is() -> None:
    pace = Pace()
    pace.answered(answer(1, 0.020), 0)
    pace.answered(answer(100, 10.0), 0)
    pace.asked(1, None)
    assert pace.asked(100, None) == 1


def test_an_answer_in_no_time_teaches_nothing() -> None:
    pace = Pace()
    pace.answered(answer(1, 0.010), 0)
    pace.answered(answer(100, 0.0), 0)
    pace.asked(1, None)
    assert pace.asked(100, None) is None


def test_bulk_beside_bulk_counts_all_texts_at_work() -> None:
    pace = Pace()
    pace.answered(answer(1, 0.020), 0)
    pace.answered(answer(100, 0.4), 100)  # 2 ms for each of 200
    pace.asked(1, None)
    assert pace.asked(100, None) == 3


def test_the_backend_is_told_while_queries_come(tmp_path: Path) -> None:
    with served(tmp_path) as made:
        sizes = made.rig.native.batch_sizes
        made.embed("a question")
        made.embed(["x"] * 50)
        assert sizes == [None, None]
        made.embed("a question")
        made.embed(["x"] * 50)
        assert sizes[2] is None
        assert sizes[3] is not None and sizes[3] >= 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_connection_that_broke_is_tried_once_more(tmp_path: Path, times: int) -> None:
    breaks = [BackendUnavailableError("The connection to Ollama was lost")] * times

    def break_down(texts: object) -> None:
        if breaks:
            raise breaks.pop()

    with served(tmp_path) as made:
        made.rig.native.on_embed = break_down
        found = made.embed("a")
        if times == 1:
            np.testing.assert_array_equal(vectors(found), [vector_of("a")])
        else:
            assert found.status_code == 503 and "Retry-After" in found.headers
