from __future__ import annotations

from typing import Any

import pytest

from embedctl.health.judgement import LOADING_S, Evidence, ProbeSeen, UsualLatency, judge
from embedctl.records import BackendState, BackendStatus, Condition


def seen(state: BackendState = BackendState.READY, device: str | None = None, **given: Any) -> Evidence:
    return Evidence(BackendStatus("ollama", state, "the detail", device=device), **given)


GOOD = ProbeSeen(ago=3.0, ms=4.2)
TIMED_OUT = ProbeSeen(ago=3.0, ms=None, timed_out=True, failure="Ollama did not answer in time")
REFUSED = ProbeSeen(ago=3.0, ms=None, failure="The connection was lost")
SLOW = ProbeSeen(ago=3.0, ms=412.0, usual_ms=4.0, slow=True)

TABLE = {
    "not looked at": (seen(BackendState.UNKNOWN), "unknown", "not looked at"),
    "gone": (seen(BackendState.UNAVAILABLE), "down", "the detail"),
    "no model": (seen(BackendState.MODEL_MISSING), "down", "the detail"),
    "crashed": (seen(BackendState.FAILED), "down", "the detail"),
    "not loaded": (seen(BackendState.UNLOADED), "idle", "loads it first"),
    "loading": (seen(BackendState.LOADING, loading_for=12.0), "idle", "loading for 12 s"),
    "stuck at loading": (seen(BackendState.LOADING, loading_for=LOADING_S + 1), "hung", "5 min 01 s"),
    "never asked": (seen(), "healthy", "nobody has asked"),
    "probed": (seen(probe=GOOD), "healthy", "a probe was answered in 4.2 ms, 3.0 s ago"),
    "answers requests": (seen(answered_ago=1.0), "healthy", "a request was answered 1.0 s ago"),
    "probe unanswered": (seen(probe=TIMED_OUT), "hung", "did not answer in time"),
    "probe refused": (seen(probe=REFUSED, answered_ago=60.0), "down", "The connection was lost"),
    "answered since the probe": (seen(probe=TIMED_OUT, answered_ago=1.0), "healthy", "a request was"),
    "silent": (seen(in_flight=7, silent_for=31.0), "hung", "7 requests in flight, and none"),
    "silent and not yet long": (seen(in_flight=7, silent_for=29.0), "healthy", ""),
    "silent since the last good probe": (
        seen(in_flight=1, silent_for=90.0, probe=ProbeSeen(ago=60.0, ms=4.0)), "hung", "1 min 30 s",
    ),
    "busy with a long request": (seen(in_flight=1, silent_for=90.0, probe=GOOD), "healthy", "a probe"),
    "fails requests": (seen(failures=3, failed_with="No vector"), "down", "3 requests failed: No vector"),
    "failed twice": (seen(failures=2, failed_with="No vector"), "healthy", ""),
    "fails requests that ask too much": (seen(failures=9, probe=GOOD), "healthy", "a probe"),
    "on the CPU": (seen(device="cpu (Grace)", gpu_expected=True), "on the CPU", "cpu (Grace)"),
    "on the CPU, as it should be": (seen(device="cpu (Grace)", probe=GOOD), "healthy", ""),
    "mostly on the GPU": (seen(device="93% gpu, rest cpu", gpu_expected=True), "healthy", ""),
    "throttled": (seen(device="gpu", throttled_by="power limit"), "throttled", "power limit"),
    "throttled GPU, backend on the CPU": (seen(device="cpu", throttled_by="power limit"), "healthy", ""),
    "slow": (seen(probe=SLOW), "slow", "took 412 ms, usual are 4.0 ms"),
    "throttled, hence slow": (seen(probe=SLOW, throttled_by="temperature"), "throttled", "temperature"),
    "silent and throttled": (seen(probe=TIMED_OUT, throttled_by="temperature"), "hung", ""),
}  # fmt: skip


@pytest.mark.parametrize(("evidence", "condition", "why"), TABLE.values(), ids=TABLE.keys())
def test_the_evidence_decides(evidence: Evidence, condition: str, why: str) -> None:
    found = judge(evidence)
    assert found.condition == Condition(condition)
    assert why in found.why


def test_a_password_in_the_servers_address_stays_out_of_it() -> None:
    status = BackendStatus("ollama", BackendState.UNAVAILABLE, "nothing answers at http://ada:s3cret@host:1")
    assert judge(Evidence(status)).why == "nothing answers at http://…@host:1"


def test_two_slow_probes_in_a_row_are_slow_and_never_become_the_usual() -> None:
    usual = UsualLatency()
    assert [usual.see(4.0) for _ in range(8)] == [False] * 8
    assert [usual.see(ms) for ms in (300.0, 4.0, 300.0, 300.0)] == [False, False, False, True]
    for _ in range(200):
        assert usual.see(300.0)
    assert usual.ms == 4.0
    assert not usual.see(4.0)


@pytest.mark.parametrize("milliseconds", [15.0, 53.0])
def test_a_small_difference_is_not_slow_whatever_its_factor(milliseconds: float) -> None:
    usual = UsualLatency()
    for _ in range(8):
        usual.see(4.0)
    assert [usual.see(milliseconds), usual.see(milliseconds)] == [False, False]


def test_a_few_probes_say_nothing_of_what_is_usual() -> None:
    usual = UsualLatency()
    assert [usual.see(ms) for ms in (1.0, 1.0, 900.0, 900.0)] == [False] * 4
