"""`bench resume`, `export`, `import`, and `compare` with conditions, on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.study_data import quality_report
from tests.cli.conftest import CommandLine
from tests.support import canned
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def fake() -> FakeEngine:
    engine = FakeEngine(jobs="immediate")
    engine.stored_runs[5] = replace(canned.run(5), state="cancelled")
    return engine


def test_the_newest_incomplete_run_is_gone_on_with(cli: CommandLine, fake: FakeEngine) -> None:
    assert "cancelled: one text" in cli("bench", "list").out
    outcome = cli("bench", "resume")
    assert outcome.code == 0 and outcome.out.startswith("run 5 ")
    assert ("resume_benchmark", 5) in fake.calls
    outcome = cli("bench", "resume")
    assert outcome.code == 2 and "no run to go on with" in outcome.err


def test_a_run_travels_in_a_file(cli: CommandLine, fake: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "seven.gz"
    assert cli("bench", "export", "7", str(file)).code == 0
    outcome = cli("bench", "import", str(file), "--json")
    assert json.loads(outcome.out)["data"]["id"] == 8
    assert replace(fake.stored_runs[8], id=7) == fake.stored_runs[7]
    assert cli("compare", "7", str(file), "--fail-on", "p50>1.02").code == 0
    file.write_bytes(b"something else")
    outcome = cli("bench", "import", str(file))
    assert outcome.code == 2 and "no gzip file" in outcome.err


@pytest.mark.parametrize("words", [("compare",), ("bench", "compare")])
def test_conditions_decide_the_exit_code(cli: CommandLine, words: tuple[str, ...]) -> None:
    met = cli(*words, "7", "6", "--fail-on", "p95>1.1, texts_per_s<0.1")
    assert met.code == 1
    assert "p95>1.1: met, native one text 1.6" in met.out
    assert "texts_per_s<0.1: not met" not in met.out  # no interval of a bare column: undecided
    assert cli(*words, "6", "7", "--fail-on", "p95>1.1").code == 0
    document = json.loads(cli(*words, "7", "6", "--fail-on", "p50>1.1", "--json").out)["data"]
    said = {
        (one["delta"]["backend"], one["delta"]["shape"]): one["outcome"] for one in document["conditions"]
    }
    assert said.pop(("ollama", "batch of 128")) == "undecided"  # one request in 24 failed, in both
    assert set(said.values()) == {"met", "not met"}


def test_what_cannot_be_judged_is_wrong_usage(cli: CommandLine) -> None:
    outcome = cli("compare", "6", "7", "--fail-on", "p95>1.1,,")
    assert outcome.code == 2 and "position 9" in outcome.err
    outcome = cli("compare", "6", "7", "--fail-on", "ndcg<-0.01")
    assert outcome.code == 2 and "both runs have: p50, p95" in outcome.err
    assert cli("compare", "6", "nowhere.gz").code == 2


def test_runs_of_other_work_are_not_compared_unless_one_insists(cli: CommandLine, fake: FakeEngine) -> None:
    mark = canned.fingerprint("native", dtype="float32")
    fake.stored_runs[6] = replace(fake.stored_runs[6], fingerprints=(mark, canned.fingerprint("ollama")))
    outcome = cli("compare", "6", "7")
    assert outcome.code == 2 and outcome.out == ""
    assert "native dtype: float32 → float16" in outcome.err
    outcome = cli("compare", "6", "7", "--anyway")
    assert outcome.code == 0 and "differs: native dtype: float32 → float16" in outcome.err


def test_studies_of_quality_are_compared_alone_or_beside_runs(cli: CommandLine, fake: FakeEngine) -> None:
    fake.stored_studies[5] = canned.quality_study(5)
    alone = cli("compare", "study:5", "study:5", "--fail-on", "ndcg<-0.03")
    assert alone.code == 0
    assert "ndcg<-0.03: not met, ollama xquad-de +0.0000 (-0.0156 to +0.0156)" in alone.out
    assert "A p50" not in alone.out
    assert alone.out.startswith("A: study 5 ")
    refused = cli("compare", "study:4", "study:5")
    assert refused.code == 2
    assert "Study 4 has no retrieval quality to compare" in refused.err
    marks = quality_report(fake.stored_studies[5]).variants
    for number in (6, 7):
        run = fake.stored_runs[number]
        fake.stored_runs[number] = replace(run, fingerprints=tuple(one.fingerprint for one in marks))
    both = cli("compare", "6+study:5", "7+study:5", "--anyway", "--fail-on", "p50>9,ndcg<-0.03")
    assert both.code == 0, both.err
    assert "p50>9: not met" in both.out
    assert "ndcg<-0.03: not met" in both.out
