"""Readiness, metrics, the fingerprint and the description of itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import embedctl
from embedctl.errors import BackendError
from embedctl.events import BackendChanged
from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.records import BackendState, JobState, Trial
from embedctl.settings import GatewaySettings
from tests.support import canned
from tests.support.fake_backend import vector_of
from tests.support.fake_engine import FakeEngine
from tests.support.gateways import Served, in_thread, served, vectors, wait_until

FINGERPRINT, BACKEND = "X-Embedctl-Fingerprint", "X-Embedctl-Backend"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        found.rig.ollama.twist = 0.5
        yield found


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For what changes nothing in the engine."""
    with served(tmp_path_factory.mktemp("steady")) as found:
        yield found


def metrics(made: Served) -> dict[str, dict[tuple[str, ...], float]]:
    """By sample name, then by label values in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(made.client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


# Health ---


def test_the_sign_of_life_says_no_more(steady: Served) -> None:
    assert steady.client.get("/healthz").json() == {"status": "ok", "version": embedctl.__version__}


def test_readiness_is_a_real_embed_kept_for_seconds(made: Served) -> None:
    before = made.rig.native.embedded
    for _ in range(3):
        answer = made.client.get("/readyz")
        assert answer.status_code == 200 and answer.json()["ready"] is True
    assert made.rig.native.embedded == before + 1
    assert answer.json()["probe_ms"] > 0


def test_a_live_answer_is_as_good_as_a_probe(steady: Served) -> None:
    steady.embed("a")
    before = steady.rig.native.embedded
    assert steady.client.get("/readyz").status_code == 200
    assert steady.rig.native.embedded == before


def test_a_backend_that_fails_its_probe_is_not_ready_and_says_why(made: Served) -> None:
    made.rig.native.embed_error = BackendError("The GPU is on fire")
    for _ in range(2):
        answer = made.client.get("/readyz")
        assert answer.status_code == 503
        assert "The GPU is on fire" in answer.json()["reasons"][0]


def test_a_backend_that_is_not_loaded_is_not_loaded_by_being_asked_after(made: Served) -> None:
    made.rig.engine.unload("native").wait(30)
    answer = made.client.get("/readyz")
    assert answer.status_code == 503 and answer.json()["reasons"] == ["native is unloaded"]
    assert made.rig.native.status().state is BackendState.UNLOADED
    assert {b["backend"] for b in answer.json()["backends"]} == {"native", "ollama"}


# Fingerprint ---


def test_each_answer_names_the_backend_and_the_fingerprint_of_its_vectors(made: Served) -> None:
    for name in ("native", "ollama"):
        digest = made.rig.engine.fingerprint(name).digest
        answer = made.embed("a", model=f"{name}:bge-m3")
        assert (answer.headers[BACKEND], answer.headers[FINGERPRINT]) == (name, digest)
        assert made.ollama("embed", model=f"{name}:bge-m3", input="a").headers[FINGERPRINT] == digest
        shown = made.client.get("/fingerprint", params={"backend": name}).json()
        assert shown["digest"] == digest and shown["dtype"] == "float32" and shown["loaded"]
        assert shown["active"] is (name == "native")
    assert made.client.get("/fingerprint").json()["backend"] == "native"
    assert made.client.get("/fingerprint?backend=tei").status_code == 400


def test_the_fingerprint_of_what_is_not_loaded_is_not_known(made: Served) -> None:
    made.rig.engine.unload("ollama").wait(30)
    shown = made.client.get("/fingerprint?backend=ollama").json()
    assert shown["digest"] is None and shown["loaded"] is False


def test_a_demanded_fingerprint_is_checked_against_the_backend_that_answers(made: Served) -> None:
    native, ollama = (made.rig.engine.fingerprint(name).digest for name in ("native", "ollama"))
    assert made.embed("a", headers={FINGERPRINT: native}).status_code == 200
    refused = made.embed("a", headers={FINGERPRINT: ollama})
    assert refused.status_code == 409 and refused.headers[FINGERPRINT] == native
    assert refused.json()["error"]["code"] == "fingerprint_mismatch"
    made.rig.engine.switch("ollama").wait(30)
    assert made.embed("a", headers={FINGERPRINT: native}).status_code == 409
    np.testing.assert_array_equal(
        vectors(made.embed("a", headers={FINGERPRINT: ollama})), [vector_of("a", 0.5)]
    )
    assert made.ollama("embed", input="a").headers[BACKEND] == "ollama"


def test_an_index_may_take_the_vectors_of_both(made: Served) -> None:
    made.rig.ollama.twist = 0.02
    both = ", ".join(str(made.rig.engine.fingerprint(name).digest) for name in ("native", "ollama"))
    for name in ("ollama", "native"):
        made.rig.engine.switch(name, keep_both=True).wait(30)
        answer = made.embed("a", headers={FINGERPRINT: both})
        assert (answer.status_code, answer.headers[BACKEND]) == (200, name)
    assert made.rig.engine.start_trial(Trial("ollama", share=0.5)).wait(30).state is JobState.DONE
    shared = {made.embed("a", headers={FINGERPRINT: both}).headers[BACKEND] for _ in range(10)}
    assert shared == {"native", "ollama"}


@pytest.mark.parametrize("demanded", ["", "xyz", "0" * 11, "0" * 13, "A" * 12, "0" * 12 + ","])
def test_a_malformed_demand_is_refused(steady: Served, demanded: str) -> None:
    refused = steady.embed("a", headers={FINGERPRINT: demanded})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_header"


def test_a_backend_that_changes_under_a_request_is_asked_again(made: Served) -> None:
    """The label belongs to the vectors: neither the one before the change nor a guess."""

    def change_once(texts: object) -> None:
        made.rig.native.dtype = "float16"

    made.rig.native.on_embed = change_once
    before = made.rig.native.embedded
    answer = made.embed("a")
    assert answer.headers[FINGERPRINT] == made.rig.engine.fingerprint("native").digest
    assert made.rig.native.embedded == before + 2


def test_during_a_shared_trial_a_demand_chooses_the_backend(made: Served) -> None:
    made.rig.ollama.twist = 0.02
    job = made.rig.engine.start_trial(Trial("ollama", share=0.5))
    assert job.wait(30).state is JobState.DONE
    for name in ("native", "ollama"):
        digest = made.rig.engine.fingerprint(name).digest
        answers = [made.embed("a", headers={FINGERPRINT: digest}) for _ in range(10)]
        assert {answer.headers[BACKEND] for answer in answers} == {name}
    both = {made.embed("a").headers[BACKEND] for _ in range(20)}
    assert both == {"native", "ollama"}
    refused = [made.embed("a", headers={FINGERPRINT: "0" * 12}) for _ in range(10)]
    assert {(answer.status_code, answer.headers[BACKEND]) for answer in refused} == {(409, "native")}


# Metrics ---


def test_metrics_count_requests_texts_and_refusals(made: Served) -> None:
    made.embed(["a", "b"])
    made.ollama("embed", model="ollama:bge-m3", input="a")
    made.embed("a", model="nothing")
    found = metrics(made)
    requests = found["embedctl_requests_total"]
    assert requests["openai", "native", "200"] == 1 and requests["ollama", "ollama", "200"] == 1
    assert requests["openai", "", "404"] == 1
    assert found["embedctl_texts_total"] == {("native",): 2, ("ollama",): 1}
    assert found["embedctl_tokens_total"]["native",] == 2
    assert found["embedctl_request_texts_sum"][()] == 3
    assert found["embedctl_request_seconds_count"] == {("openai",): 1, ("ollama",): 1}
    assert found["embedctl_rejected_total"]["model_not_found",] == 1


def test_metrics_tell_the_queue_the_active_backend_switches_and_jobs(made: Served) -> None:
    made.rig.native.gate = threading.Event()
    asked = in_thread(lambda: made.embed(["a"] * 7))
    wait_until(lambda: made.rig.engine._traffic.in_flight("native") == 1)
    found = metrics(made)
    assert (found["embedctl_in_flight"][()], found["embedctl_texts_in_flight"][()]) == (1, 7)
    assert found["embedctl_queue_length"][()] == 0
    made.rig.native.gate.set()
    assert asked().status_code == 200
    made.rig.engine.switch("ollama").wait(30)
    found = metrics(made)
    assert found["embedctl_active_backend"] == {("native",): 0, ("ollama",): 1}
    assert found["embedctl_switches_total"]["ollama",] == 1
    assert found["embedctl_jobs_total"]["switch", "done"] == 1
    assert found["embedctl_backend_state"]["native", "ready"] == 1


def test_machine_figures_are_there_only_where_they_were_read(tmp_path: Path) -> None:
    engine = FakeEngine()
    gateway = Gateway(engine, GatewaySettings(port=0), keys=Keys())
    url = gateway.start()
    try:
        with httpx.Client(base_url=url) as client:
            made = Served(None, gateway, client)  # type: ignore[arg-type]
            found = metrics(made)
            sample = engine.sample()
            assert found["embedctl_gpu_energy_joules_total"][()] == sample.values["gpu_energy"]
            assert found["embedctl_gpu_power_watts"][()] == sample.values["gpu_power"]
            assert (
                found["embedctl_measured_gpu_memory_bytes"]["native",] == sample.values["native_gpu_memory"]
            )
            claimed = engine.backends["native"].claimed_bytes
            assert found["embedctl_memory_claimed_bytes"]["native",] == claimed
            engine.set_machine(canned.without_gpu())
            engine.set_backend(replace(engine.backends["native"], claimed_bytes=None))
            found = metrics(made)
            assert not any(name.startswith("embedctl_gpu_") for name in found)
            assert ("native",) not in found["embedctl_memory_claimed_bytes"]
            assert found["embedctl_host_memory_available_bytes"][()] > 0
    finally:
        gateway.stop()
    assert engine.subscribers == 0
    engine.publish(BackendChanged(engine.backends["native"]))


def test_the_description_lists_every_path(steady: Served) -> None:
    document = steady.client.get("/openapi.json").json()
    assert document["info"]["version"] == embedctl.__version__
    app = steady.gateway._app
    assert app is not None
    served_paths = {
        route.path.replace(":path", "")  # type: ignore[attr-defined]
        for route in app.asgi.routes
    }
    assert set(document["paths"]) == served_paths - {"/"}
