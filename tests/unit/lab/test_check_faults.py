"""Faults planted in a local server that speaks Ollama's protocol: each must be found, and named."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from embedctl.demo.ollama_server import Interceptor
from embedctl.errors import Cancelled
from embedctl.lab.check import headline, judge
from embedctl.lab.check_evidence import Evidence, work_of
from embedctl.lab.check_texts import CheckTexts
from embedctl.progress import CancelToken
from embedctl.records import CheckReport, CheckRow, Outcome
from tests.support import ollama_faults as faults
from tests.support.check_targets import as_native, evidence, few_texts
from tests.support.ollama_faults import count_words


@pytest.fixture(scope="module")
def texts() -> CheckTexts:
    return few_texts()


@pytest.fixture(scope="module")
def healthy(texts: CheckTexts) -> Evidence:
    """Module-wide: no test changes it."""
    return evidence(texts)


@pytest.fixture
def check(texts: CheckTexts, healthy: Evidence) -> Callable[[Interceptor | None], CheckReport]:
    def run(fault: Interceptor | None) -> CheckReport:
        return judge([as_native(healthy), evidence(texts, fault)], texts, count_words)

    return run


Check = Callable[[Interceptor | None], CheckReport]


def rows(report: CheckReport, part: str, backend: str | None = "ollama") -> list[CheckRow]:
    return [row for row in report.rows if (row.part, row.backend) == (part, backend)]


def test_two_that_are_alike_and_well_are_safe(check: Check) -> None:
    report = check(None)
    assert report.verdict == "safe"
    assert report.reasons == ()
    assert {row.outcome for row in report.rows} == {Outcome.OK}
    assert report.parity[0].least == pytest.approx(1.0)
    assert report.overlap == 1.0
    assert [limit.effective for limit in report.limits] == [8192, 8192]
    assert headline(report) == "safe: native and ollama agree on 90 texts, least cosine 1.00000"


@pytest.mark.parametrize("limit", [2048, 2047, 513])
def test_a_silent_cut_is_found_to_the_token(check: Check, limit: int) -> None:
    report = check(faults.cuts_silently(limit))
    assert report.verdict == "safe with limits"
    assert report.reasons == (f"texts over {limit:,} tokens are cut by ollama, silently (it claims 8,192)",)
    found = report.limits[1]
    assert (found.effective, found.claimed, found.told, found.at_least) == (limit, 8192, False, False)
    assert found.probes <= 16


def test_a_constant_vector_is_found(check: Check) -> None:
    report = check(faults.changes(lambda texts, vectors: [[1.0, *[0.0] * 15] for _ in vectors]))
    assert report.verdict == "not safe"
    assert "ollama gives different texts the same vector (a constant vector)" in report.reasons


def test_one_text_without_a_number_is_found_and_shown(check: Check, texts: CheckTexts) -> None:
    bad = texts.texts[17]
    report = check(faults.value_for(bad, math.nan))
    assert report.verdict == "not safe"
    [reason] = report.reasons
    assert reason.startswith("ollama has no vector for 1 of 90 texts: “" + bad[:30])
    assert "NaN" in reason
    assert report.parity[0].texts == 89


def test_vectors_without_unit_norm_are_found(check: Check) -> None:
    report = check(faults.scaled(2.5))
    assert report.verdict == "safe with limits"
    [reason] = report.reasons
    assert "ollama gives vectors without unit norm (90 texts)" in reason


def test_an_exchanged_order_in_a_list_is_found(check: Check) -> None:
    report = check(faults.swaps_in_lists())
    assert report.verdict == "not safe"
    assert "in a list ollama gives 2 of 24 texts the vector of another: the order is wrong" in report.reasons


def test_an_order_that_is_wrong_in_long_lists_alone_is_found_without_another_backend(
    texts: CheckTexts,
) -> None:
    def turned(texts: list[str], rows: list[list[float]]) -> list[list[float]]:
        return [*rows[1:], rows[0]] if len(rows) > 24 else rows

    report = judge([evidence(texts, faults.changes(turned))], texts, count_words, not_compared="no native")
    assert report.verdict == "not safe"
    [reason, *_] = report.reasons
    assert reason.startswith("in lists of 32 ollama gives 24 of 24 texts ")


def test_wrong_vectors_under_concurrency_alone_are_found(check: Check) -> None:
    report = check(faults.WrongAtOnce())
    assert report.verdict == "not safe"
    [reason] = report.reasons
    assert reason.startswith("in concurrent requests ollama gives")
    assert "a wrong vector" in reason
    assert rows(report, "vectors")[0].outcome is Outcome.OK


def test_drift_from_a_length_on_is_found_with_the_length(check: Check) -> None:
    report = check(faults.drifts_from(513))
    assert report.verdict == "safe with limits"
    assert "texts of 513 tokens and more get another vector" in rows(report, "lengths", None)[0].finding
    assert "still equal at 512" in rows(report, "lengths", None)[0].finding


def test_drift_that_the_texts_themselves_show_is_named_by_its_length(check: Check) -> None:
    report = check(faults.drifts_from(33))
    assert report.verdict == "not safe"
    assert report.reasons[0].split(":")[0].endswith("texts get another vector (cosine below 0.99)")
    assert any("texts of 64 tokens and more get another vector" in reason for reason in report.reasons)


def test_drift_is_seen_without_another_backend(texts: CheckTexts) -> None:
    report = judge([evidence(texts, faults.drifts_from(513))], texts, count_words, not_compared="no native")
    assert report.verdict == "undecided"
    assert report.reasons[0] == "no native"
    [row] = rows(report, "lengths")
    assert row.outcome is Outcome.LIMIT
    assert "jump from 512 to 513 tokens" in row.finding


def test_other_weights_are_found(check: Check) -> None:
    def another_model(texts: list[str], vectors: list[list[float]]) -> list[list[float]]:
        return [[*row[::2], *(-value for value in row[1::2])] for row in vectors]

    report = check(faults.changes(another_model))
    assert report.verdict == "not safe"
    parts = {row.part for row in report.rows if row.outcome is Outcome.BAD}
    assert {"parity", "cross-index"} <= parts
    assert report.overlap == 1.0, "turned as a whole, an index searches itself as before"
    assert report.worst[0].cosine == pytest.approx(min(report.cosines))


def test_a_count_that_sticks_is_found(check: Check) -> None:
    def stuck(path: str, body: object, proceed: Callable[[], faults.Reply]) -> faults.Reply:
        reply = proceed()
        if path != "/api/embed" or reply.body is None or "prompt_eval_count" not in reply.body:
            return reply
        return faults.Reply(200, {**reply.body, "prompt_eval_count": 7})

    report = check(stuck)
    assert report.verdict == "safe with limits"
    assert "otherwise than the model's tokenizer (7, not 8,192:" in rows(report, "tokens")[0].finding


def test_a_server_that_fails_is_given_up_soon(texts: CheckTexts) -> None:
    asked = 0

    def fails(path: str, body: object, proceed: Callable[[], faults.Reply]) -> faults.Reply:
        nonlocal asked
        asked += path == "/api/embed"
        return faults.Reply(500, {"error": "the runner ended"}) if path == "/api/embed" else proceed()

    report = judge([evidence(texts, fails)], texts, count_words, not_compared="no native")
    assert report.verdict == "not safe"
    assert report.reasons[0].startswith("ollama was given up: 5 requests in a row failed: ")
    assert asked < 60


def test_progress_counts_up_to_the_work_announced(texts: CheckTexts) -> None:
    told: list[tuple[str, float]] = []
    evidence(texts, tell=lambda step, done: told.append((step, done)))
    done = [number for _, number in told]
    assert done == sorted(done)
    assert 0.6 * work_of(texts) < done[-1] < work_of(texts)
    assert told[0][0] == "ollama: one text at a time"


def test_a_cancel_ends_it(texts: CheckTexts) -> None:
    cancel = CancelToken()

    def tell(step: str, done: float) -> None:
        if step.endswith("requests at once"):
            cancel.cancel()

    with pytest.raises(Cancelled):
        evidence(texts, tell=tell, cancel=cancel)
