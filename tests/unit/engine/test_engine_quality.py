"""Quality, coexistence and claims as jobs of the engine: kept, told, everything afterwards as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedctl.engine.variants import parse_vary, with_changes
from embedctl.errors import BackendError, UsageError
from embedctl.progress import CancelToken
from embedctl.records import JobState, Severity, Study
from embedctl.settings import NativeSettings, Settings
from embedctl.study_data import coexist_report, quality_report
from tests.support.engines import GIB, Rig, rig
from tests.support.fake_backend import FakeBackend


class Words:
    """A language model that writes at a fixed pace."""

    name = "tiny:latest"
    simulated = True

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[None]:
        token = CancelToken()
        while not stopped():
            token.wait(0.001)
            yield


@pytest.fixture
def guests() -> list[FakeBackend]:
    return []


@pytest.fixture
def bench(tmp_path: Path, guests: list[FakeBackend]) -> Iterator[Rig]:
    def native_with(changes: Mapping[str, Any]) -> FakeBackend:
        guests.append(FakeBackend("native", expected_bytes=int(20 * GIB)))
        guests[-1].dtype = "float32" if changes.get("dtype") == "float8" else str(changes.get("dtype", "f"))
        guests[-1].twist = {"bfloat16": 3.0}.get(guests[-1].dtype, 0.0)
        return guests[-1]

    @contextmanager
    def language_model(name: str | None) -> Iterator[Words]:
        assert name in (None, "tiny:latest")
        yield Words()

    parts = {"native_with": native_with, "language_model": language_model}
    settings = Settings.model_validate({"telemetry": {"screen_hz": 20}, "engine": {"settle_timeout_s": 0.3}})
    with rig(tmp_path, settings, parts=parts) as made:
        yield made


def done(job: Any) -> Study:
    update = job.wait(60)
    assert update.state is JobState.DONE, update.failure
    assert isinstance(update.result, Study)
    return update.result


def test_two_backends_are_asked_and_the_study_is_kept(bench: Rig) -> None:
    bench.ollama.twist = 3.0
    study = done(bench.engine.quality(sets=["xquad-en"], queries=60))
    report = quality_report(study)
    assert (study.kind, study.backends) == ("quality", ("native", "ollama"))
    assert [variant.name for variant in report.variants] == ["native", "ollama"]
    assert report.variants[0].fingerprint.driver == "580"
    assert study.environment["kernel"]
    assert bench.engine.study(study.id) == study
    [event] = bench.engine.events(kinds=["quality"])
    assert event.detail == {"study": study.id, "seconds": study.seconds}
    for backend in (bench.native, bench.ollama):
        assert backend.calls == ["load", "unload"]


def test_variants_are_guests_one_after_another(bench: Rig, guests: list[FakeBackend]) -> None:
    study = done(bench.engine.quality(vary="dtype=float32,bfloat16,float8", sets=["xquad-en"], queries=40))
    report = quality_report(study)
    assert [one.name for one in report.variants] == [
        "native dtype=float32", "native dtype=bfloat16", "native dtype=float8",
    ]  # fmt: skip
    assert report.variants[1].changes == {"dtype": "bfloat16"}
    assert [one.notes for one in report.variants] == [
        (), (), ("float8 was asked for, and this machine computes in float32",),
    ]  # fmt: skip
    assert {one.variant for one in report.differences} == {"native dtype=bfloat16", "native dtype=float8"}
    assert [guest.calls for guest in guests] == [["load", "close"]] * 3
    assert not bench.native.calls


def test_where_both_do_not_fit_the_engines_own_is_away_meanwhile(
    bench: Rig, guests: list[FakeBackend]
) -> None:
    bench.engine.load("native").wait(10)
    bench.probe.held = 40 * GIB
    done(bench.engine.quality(vary="max_tokens=64,128", sets=["xquad-en"], queries=20))
    assert bench.native.calls == ["load", "unload", "load", "unload", "load"]
    assert [guest.calls.count("load") for guest in guests] == [0, 1, 0, 1]
    assert all(guest.calls[-1] == "close" for guest in guests)


def test_a_guest_that_fails_is_closed_and_the_job_says_why(bench: Rig, guests: list[FakeBackend]) -> None:
    def broken(changes: Mapping[str, Any]) -> FakeBackend:
        guests.append(FakeBackend("native"))
        guests[-1].load_error = BackendError("no such kernel")
        return guests[-1]

    parts = bench.engine._parts
    bench.engine._studies._parts = replace(parts, native_with=broken)
    update = bench.engine.quality(vary="attention=math,sdpa", sets=["xquad-en"], queries=20).wait(30)
    assert update.state is JobState.FAILED
    assert update.failure is not None
    assert update.failure.what == "no such kernel"
    assert guests[0].calls == ["load", "close"]
    assert not bench.engine.studies("quality")


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"vary": "dtype"}, "says nothing that can be varied"),
        ({"vary": "batch_size=1,2"}, "says nothing that can be varied"),
        ({"vary": "dtype=float32"}, "says nothing that can be varied"),
        ({"vary": "dtype=float32,int3"}, "native.dtype = int3 is not allowed"),
        ({"vary": "max_tokens=1,512"}, "native.max_tokens = 1 is not allowed"),
        ({"vary": "dtype=float32,float16", "backends": ["ollama"]}, "Only the native backend"),
        ({"backends": ["vllm"]}, "There is no backend 'vllm'"),
        ({"sets": []}, "nothing to search"),
    ],
)
def test_a_question_without_sense_is_refused_at_once(bench: Rig, wish: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        bench.engine.quality(**wish)


def test_variants_keep_the_configured_settings() -> None:
    first, second = parse_vary(" max_tokens = 512 , 8192 ")
    base = NativeSettings(dtype="bfloat16")
    assert with_changes(base, first) == NativeSettings(dtype="bfloat16", max_tokens=512)
    assert second == {"max_tokens": "8192"}
    assert parse_vary("") == ()


def test_coexistence_of_each_backend_is_kept_and_told(bench: Rig) -> None:
    study = done(bench.engine.coexist(rounds=3, block_seconds=0.1, most_slower=50.0, least_kept=0.01))
    report = coexist_report(study)
    assert (study.kind, report.model, report.simulated) == ("coexist", "tiny:latest", True)
    assert [row.backend for row in report.rows] == ["native", "ollama"]
    assert report.limits == {"tokens_kept": 0.01, "p99_ratio": 50.0}
    for row in report.rows:
        assert row.memory_floor == 8 * GIB
        assert row.least_memory.value is not None
        assert 50 * GIB < row.least_memory.value < 60 * GIB
    assert "simulated" in report.notes[0]
    assert study.environment["kernel"] and "gpu_sm_clock" in study.environment
    [event] = bench.engine.events(kinds=["coexist"])
    assert event.severity in (Severity.OK, Severity.WARNING)
    assert event.detail == {"study": study.id, "seconds": study.seconds}
    assert bench.native.calls == bench.ollama.calls == ["load", "unload"]
    with pytest.raises(UsageError, match="makes no measurement"):
        bench.engine.coexist(rounds=0)


def test_claims_come_from_the_store(bench: Rig) -> None:
    assert {claim.verdict for claim in bench.engine.claims().claims} == {"not measured"}
    done(bench.engine.quality(sets=["xquad-en"], queries=60))
    alike = next(claim for claim in bench.engine.claims().claims if claim.id == "quality-alike")
    assert (alike.verdict, alike.evidence) == ("holds", ("study 1",))


def test_an_engine_without_a_hub_says_so(bench: Rig) -> None:
    update = bench.engine.quality(sets=["hub:mteb/msmarco"], split="dev").wait(10)
    assert update.failure is not None
    assert update.failure.what == "mteb/msmarco cannot be fetched here"
