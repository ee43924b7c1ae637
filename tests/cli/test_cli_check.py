"""`embedctl check`: the answer as words, as JSON and as an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedctl.cli.check_text import _cut
from embedctl.study_data import check_report, data_of
from tests.support import canned
from tests.support.command_line import CommandLine
from tests.support.fake_engine import FakeEngine


def answer(verdict: str, **changes: Any) -> Callable[..., Any]:
    """In place of `canned.check_study`: a check with this verdict."""
    usual = canned.check_study

    def make(study_id: int = 4, **given: Any) -> Any:
        study = usual(study_id, **given)
        report = check_report(study)
        rows = report.rows if verdict != "safe" else report.rows[:1]
        report = replace(report, **{"verdict": verdict, "rows": rows, **changes})  # type: ignore[arg-type]
        return replace(study, verdict=verdict, data=data_of(report))

    return make


def test_a_check_is_shown_answer_first(cli: CommandLine, golden: Callable[[str, str], None]) -> None:
    outcome = cli("check")
    assert outcome.code == 1
    assert max(map(len, outcome.out.splitlines())) <= 80
    golden("check", outcome.out)


@pytest.mark.parametrize(
    ("verdict", "options", "code"),
    [
        ("safe", (), 0),
        ("safe with limits", (), 1),
        ("safe with limits", ("--allow-limits",), 0),
        ("not safe", ("--allow-limits",), 1),
        ("undecided", (), 2),
    ],
)
def test_the_exit_code_is_the_answer(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, verdict: str, options: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr(canned, "check_study", answer(verdict))
    assert cli("check", *options).code == code


def test_one_backend_alone_is_fine_when_nothing_is_wrong_with_it(
    cli: CommandLine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = check_report(canned.check_study())
    alone = answer("undecided", rows=report.rows[:3], backends=("native",), not_compared="only native")
    monkeypatch.setattr(canned, "check_study", alone)
    outcome = cli("check", "--backend", "native")
    assert outcome.code == 0
    assert outcome.out.startswith("UNDECIDED: only native was checked\n")
    assert ("check", ("native",), None) in fake.calls
    assert cli("check").code == 2


def test_json_holds_the_whole_study(cli: CommandLine) -> None:
    outcome = cli("check", "--json")
    document = json.loads(outcome.out)
    assert (document["kind"], outcome.code) == ("study", 1)
    assert document["data"]["verdict"] == "safe with limits"
    assert document["data"]["data"]["limits"][1]["effective"] == 2047


def test_if_changed_answers_from_the_last_check(cli: CommandLine, fake: FakeEngine) -> None:
    outcome = cli("check", "--if-changed")
    assert outcome.code == 1
    assert "nothing has changed since check 4 of " in outcome.err
    assert not any(call[0] == "check" for call in fake.calls)
    fake.changes = ("ollama backend_version: 0.33.0 → 0.34.2",)
    outcome = cli("check", "--if-changed")
    assert "changed: ollama backend_version: 0.33.0 → 0.34.2" in outcome.err
    assert ("check", None, None) in fake.calls
    fake.changes = None
    assert "no check yet that came to an answer" in cli("check", "--if-changed").err


def test_last_shows_and_runs_nothing(cli: CommandLine, fake: FakeEngine) -> None:
    assert cli("check", "--last").code == 1
    assert not any(call[0] == "check" for call in fake.calls)
    fake.stored_studies[9] = replace(
        canned.check_study(9, at=canned.NOW),
        title="native",
        verdict="undecided",
        headline="undecided: native alone",
    )
    assert "check 4, " in cli("check", "--last").out
    assert "nothing has changed since check 4 of" in cli("check", "--if-changed").err
    fake.stored_studies.clear()
    outcome = cli("check", "--last")
    assert outcome.code == 2
    assert "`embedctl check` makes one" in outcome.err


def test_own_texts_come_from_lines_or_json_lines(cli: CommandLine, fake: FakeEngine, tmp_path: Path) -> None:
    plain, lines = tmp_path / "queries.txt", tmp_path / "queries.jsonl"
    plain.write_text("one\n\ntwo\n", encoding="utf-8")
    lines.write_text('{"text": "eins"}\n{"text": "zwei\\ndrei"}\n{"text": "x"}\n', encoding="utf-8")
    cli("check", "--queries", str(plain))
    cli("check", "--queries", str(lines))
    assert [call[2] for call in fake.calls if call[0] == "check"] == [2, 3]
    lines.write_text('{"query": "eins"}\n', encoding="utf-8")
    refused = cli("check", "--queries", str(lines))
    assert refused.code == 2
    assert "text 1 cannot be read" in refused.err
    assert cli("check", "--last", "--queries", str(plain)).code == 2
    assert cli("check", "--queries", str(tmp_path / "absent")).code == 2


def test_a_shown_text_is_cut_by_columns_not_characters() -> None:
    assert _cut("short", 10) == "short"
    assert _cut("a long one indeed", 8) == "a long…"
    assert _cut("这座桥是什么时候", 9) == "这座桥是…"
    assert _cut("e\u0301" * 5, 5) == "e\u0301" * 5
