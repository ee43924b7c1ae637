"""Findings on backends, model and disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedctl.doctor.backend_checks import check_backend, check_disk, check_model
from embedctl.records import BackendState, FileState, Severity
from tests.support import canned

GIB = 1024**3


@pytest.mark.parametrize("state", BackendState)
def test_every_state_of_a_backend_has_a_severity(state: BackendState) -> None:
    [finding] = check_backend(canned.native(state), unified_memory=True)
    assert str(state) in finding.title
    expected = {
        BackendState.UNKNOWN: Severity.INFO,
        BackendState.UNAVAILABLE: Severity.WARNING,
        BackendState.MODEL_MISSING: Severity.WARNING,
        BackendState.FAILED: Severity.ERROR,
    }
    assert finding.severity is expected.get(state, Severity.OK)


def test_a_backends_own_reason_and_remedy_are_passed_on() -> None:
    status = canned.ollama(BackendState.UNAVAILABLE)
    [finding] = check_backend(status, unified_memory=True)
    assert finding.topic == "ollama"
    assert finding.title == "ollama: unavailable"
    assert (finding.detail, finding.remedy) == (status.detail, status.remedy)


@pytest.mark.parametrize(
    ("version", "unified", "present", "absent"),
    [
        ("0.12.3", True, ["NVML's missing memory", "513"], ["near 80", "num_batch is sent"]),
        ("0.12.3", False, ["513"], ["NVML's missing memory"]),
        ("0.31.0", True, ["near 80", "num_batch is sent", "NaN"], ["NVML's missing memory", "513"]),
        ("0.31.0", None, ["near 80"], []),
        ("0.31.0", False, ["num_batch is sent"], ["near 80"]),
        ("0.33.2", True, ["NaN"], ["near 80"]),
    ],
)
def test_known_faults_of_the_servers_version_are_named_where_they_show(
    version: str, unified: bool | None, present: list[str], absent: list[str]
) -> None:
    found = check_backend(canned.ollama(version=version), unified_memory=unified)[1:]
    assert {finding.title for finding in found} == {f"known fault of {version}"}
    assert {finding.severity for finding in found} == {Severity.INFO}
    assert all(finding.remedy and "(" in finding.detail for finding in found)
    said = " | ".join(finding.detail for finding in found)
    assert [words for words in present if words not in said] == []
    assert [words for words in absent if words in said] == []


def test_the_native_backends_version_is_not_taken_for_ollamas() -> None:
    assert len(check_backend(canned.native(version="0.12.3"), unified_memory=True)) == 1


def test_a_server_that_does_not_tell_its_version_has_no_faults_that_could_be_named() -> None:
    assert len(check_backend(canned.ollama(version="0.0.0"), unified_memory=True)) == 1
    assert len(check_backend(canned.ollama(version=None), unified_memory=True)) == 1


# The model and the disk ----------------------------------------------------------------------------------


def test_a_complete_model_is_shown_with_its_folder() -> None:
    model = canned.model()
    [finding] = check_model(model, "")
    assert (finding.severity, finding.title) == (Severity.OK, "BAAI/bge-m3 is here")
    assert model.folder is not None
    assert finding.detail == f"{model.folder}; converted to safetensors"
    [plain] = check_model(replace(model, converted=False), "")
    assert plain.detail == model.folder


def test_missing_files_are_named_and_a_partial_one_is_not_called_missing() -> None:
    model = canned.model(FileState.MISSING, partial={"pytorch_model.bin": 1_000_000})
    [finding] = check_model(model, "")
    assert (finding.severity, finding.title) == (Severity.WARNING, "BAAI/bge-m3 is not complete")
    assert "tokenizer.json" in finding.detail
    assert "pytorch_model.bin" not in finding.detail
    assert "embedctl models download" in finding.remedy


def test_damage_is_told_beside_what_is_missing() -> None:
    model = canned.model(FileState.PRESENT, partial={"tokenizer.json": 0})
    [finding] = check_model(replace(model, detail="damaged: pytorch_model.bin"), "")
    assert finding.detail == "damaged: pytorch_model.bin; missing: tokenizer.json"


def test_a_model_of_which_nothing_is_on_disk_is_not_here() -> None:
    [finding] = check_model(
        replace(canned.model(FileState.MISSING), files=(), detail="nothing is on disk"), ""
    )
    assert (finding.title, finding.detail) == ("BAAI/bge-m3 is not here", "nothing is on disk")


def test_what_the_hub_said_stands_where_the_model_would() -> None:
    [finding] = check_model(None, "The cache cannot be read")
    assert finding.severity is Severity.WARNING
    assert finding.detail == "The cache cannot be read"
    assert finding.remedy


@pytest.mark.parametrize(
    ("free", "needed", "severity", "detail"),
    [
        (400 * GIB, 0, Severity.OK, "nothing is still to be fetched"),
        (400 * GIB, int(2.3 * GIB), Severity.OK, "2.3 GiB are still to be fetched"),
        (4 * GIB, int(2.3 * GIB), Severity.WARNING, "2.3 GiB are still to be fetched"),
        (1 * GIB, 0, Severity.WARNING, "nothing is still to be fetched"),
        (400 * GIB, None, Severity.OK, "not known"),
        (1 * GIB, None, Severity.WARNING, "not known"),
    ],
)
def test_disk_is_tight_when_the_rest_of_the_model_would_leave_little(
    free: int, needed: int | None, severity: Severity, detail: str
) -> None:
    finding = check_disk(free, needed)
    assert finding.severity is severity
    assert f"{free / GIB:.1f} GiB free" in finding.title
    assert detail in finding.detail
    assert ("HF_HOME" in finding.remedy) == (severity is Severity.WARNING)


def test_a_disk_that_cannot_be_asked_is_unknown_and_not_full() -> None:
    finding = check_disk(None, 5 * GIB)
    assert finding.severity is Severity.INFO
    assert "not known" in finding.title
