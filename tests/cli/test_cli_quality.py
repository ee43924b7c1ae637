"""`quality`, `coexist`, `claims` and `report adr`: words, JSON, files and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.study_data import coexist_report, data_of, quality_report
from tests.support.canned import coexist_study, quality_study
from tests.support.command_line import CommandLine
from tests.support.fake_engine import FakeEngine

Golden = Callable[[str, str], None]


def test_quality_is_shown_answer_first(cli: CommandLine, fake: FakeEngine, golden: Golden) -> None:
    outcome = cli("quality", "--set", "xquad-en", "-s", "xquad-de", "--queries", "300")
    assert outcome.code == 0
    golden("quality", outcome.out)
    assert ("quality", None, "", ("xquad-en", "xquad-de"), "test", 300, None, 0.01) in fake.calls
    cli("quality", "--vary", "dtype=float32,float16", "--threshold", "0.02")
    assert ("quality", None, "dtype=float32,float16", ("xquad",), "test", None, None, 0.02) in fake.calls


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("better", 0), ("measured", 0), ("no difference that matters", 0), ("worse", 1), ("undecided", 2)],
)
def test_qualitys_exit_code_is_the_answer(
    cli: CommandLine, fake: FakeEngine, verdict: str, code: int
) -> None:
    study = quality_study(9)
    report = replace(quality_report(study), verdict=verdict)  # type: ignore[arg-type]
    fake.stored_studies[9] = replace(study, verdict=verdict, data=data_of(report))
    assert cli("quality", "--last").code == code


def test_coexistence_is_shown_answer_first(cli: CommandLine, fake: FakeEngine, golden: Golden) -> None:
    outcome = cli("coexist", "--model", "llama3.2:1b", "--rounds", "3", "--seconds", "5")
    assert outcome.code == 1
    golden("coexist", outcome.out)
    assert ("coexist", None, "llama3.2:1b", 3, 5.0, 0.8, 2.0) in fake.calls


@pytest.mark.parametrize(("verdict", "code"), [("fit side by side", 0), ("do not fit", 1), ("undecided", 2)])
def test_coexistences_exit_code_is_the_answer(
    cli: CommandLine, fake: FakeEngine, verdict: str, code: int
) -> None:
    study = coexist_study(9)
    report = replace(coexist_report(study), verdict=verdict)  # type: ignore[arg-type]
    fake.stored_studies[9] = replace(study, data=data_of(report))
    assert cli("coexist", "--last").code == code


def test_last_needs_one(cli: CommandLine) -> None:
    for command in ("quality", "coexist"):
        outcome = cli(command, "--last")
        assert outcome.code == 2
        assert f"`embedctl {command}` does it" in outcome.err


def test_json_holds_the_whole_study(cli: CommandLine) -> None:
    for command in ("quality", "coexist"):
        document = json.loads(cli(command, "--json").out)
        assert (document["kind"], document["data"]["kind"]) == ("study", command)


def test_claims_in_three_formats(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("claims").out.startswith("# The design document's claims, measured\n")
    assert cli("claims", "--format", "html").out.startswith("<!doctype html>\n")
    document = json.loads(cli("claims", "--format", "json").out)
    assert (document["schema_version"], document["kind"]) == (1, "claims")
    assert len(document["data"]["claims"]) == 22
    for name, begins in (("c.html", "<!doctype"), ("c.json", "{"), ("c.md", "# The")):
        outcome = cli("claims", "-o", str(tmp_path / name))
        assert outcome.out == ""
        assert "not measured" in outcome.err
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    refused = cli("claims", "-o", str(tmp_path / "no" / "c.md"))
    assert refused.code == 2
    assert "cannot be written" in refused.err


def test_the_decision_record(cli: CommandLine, fake: FakeEngine, tmp_path: Path) -> None:
    assert "# Which backend embeds on " in cli("report", "adr").out
    assert cli("report", "adr", "-o", str(tmp_path / "adr.md")).code == 0
    assert "study 4" in (tmp_path / "adr.md").read_text(encoding="utf-8")
    fake.stored_studies.clear()
    assert "**No decision yet:** it was not checked" in cli("report", "adr").out
