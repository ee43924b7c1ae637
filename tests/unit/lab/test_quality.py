"""Retrieval quality: the search, the sets, the interval, and planted losses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedctl.errors import BackendError, Cancelled, UsageError
from embedctl.lab.beir import built_in_set
from embedctl.lab.quality import (
    Found,
    QualityTarget,
    collect,
    headline,
    judge,
    verdict_of,
    work_of,
)
from embedctl.lab.quality_search import MEASURES, Search, measure
from embedctl.lab.quality_sets import SearchSet, search_sets
from embedctl.lab.statistics import clustered_mean
from embedctl.progress import CancelToken
from embedctl.records import EmbedResult, Fingerprint, Interval, QualityMeasure, QualityReport

MARK = Fingerprint("native", "1", "m", None, "float32", "cls", True, 512, 32, "cpu", None, None, None, None)
_WORDS = np.random.default_rng(1).standard_normal((4096, 32)).astype(np.float32)


def vector(text: str) -> np.ndarray:
    """A bag of words: texts that share rare words are near, as with a model."""
    words = set(text.lower().split())
    places = [sum(map(ord, word)) * 31 % 4096 for word in sorted(words) if len(word) > 4] or [0]
    return np.asarray(_WORDS[places].sum(axis=0))


def target(name: str = "native", *, noise: float = 0.0, seed: int = 0) -> QualityTarget:
    def embed(texts: Sequence[str]) -> EmbedResult:
        rng = np.random.default_rng(seed)
        rows = np.stack([vector(text) for text in texts])
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows + noise * rng.standard_normal(rows.shape) / np.sqrt(rows.shape[1])
        return EmbedResult(rows.astype(np.float32), name, len(texts), (), (), 0.0)

    return QualityTarget(name, name, {}, embed, replace(MARK, backend=name))


def no_hub(repo: str, revision: str | None, split: str) -> tuple[Path, Path]:
    raise AssertionError("nobody asked for a data set of the Hub")


def sets(*names: str, queries: int | None = 240) -> tuple[SearchSet, ...]:
    return search_sets(names or ("xquad-en",), most_queries=queries, fetch=no_hub)


def ask(*targets: QualityTarget, of: Sequence[SearchSet] | None = None) -> QualityReport:
    chosen = of or sets()
    found = [collect(one, chosen, lambda step, done: None, CancelToken()) for one in targets]
    return judge(found, chosen)


# The search ----------------------------------------------------------------------------------------------


def test_blocks_of_any_size_find_what_one_sort_of_everything_finds() -> None:
    rng = np.random.default_rng(3)
    documents = rng.integers(-2, 3, (400, 4)).astype(np.float32)  # full of ties, and of zero rows
    documents[50] = np.nan
    queries = rng.integers(-2, 3, (40, 4)).astype(np.float32)
    queries[queries.any(axis=1) == 0] = 1.0
    with np.errstate(invalid="ignore"):
        unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    scores = np.round(queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T.astype(np.float64), 6)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    expected = [
        [int(place) for place in np.argsort(-row, kind="stable")[:10] if np.isfinite(row[place])]
        for row in scores
    ]
    for block in (1, 7, 100, 400):
        search = Search(queries, depth=10)
        for start in range(0, 400, block):
            search.add(documents[start : start + block])
        assert [list(map(int, places)) for places in search.found()] == expected


def test_a_query_without_a_vector_finds_nothing_and_counts_as_zero() -> None:
    search = Search(np.array([[1.0, 0.0], [np.nan, 0.0]]), depth=2)
    search.add(np.array([[1.0, 0.0], [0.0, 1.0]]))
    first, second = search.found()
    assert (list(first), list(second)) == ([0, 1], [])
    found = measure({"a": ["x", "y"], "b": []}, {"a": {"y": 1}, "b": {"x": 1}})
    assert found["mrr@10"] == {"a": 0.5, "b": 0.0}
    assert found["recall@100"] == {"a": 1.0, "b": 0.0}
    assert found["ndcg@10"]["a"] == pytest.approx(1 / np.log2(3), abs=1e-12)


def test_a_missing_ir_measures_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ir_measures", None)
    with pytest.raises(UsageError) as raised:
        measure({"a": ["x"]}, {"a": {"x": 1}})
    assert "embedctl[quality]" in raised.value.remedy


# The sets ------------------------------------------------------------------------------------------------


def test_built_in_sets_each_and_across_languages() -> None:
    names = [one.name for one in search_sets(["xquad"], most_queries=2, fetch=no_hub)]
    assert names[:6] == [f"xquad-{language}" for language in ("en", "de", "es", "zh", "ar", "ru")]
    assert names[6:] == [f"xquad-{language}-en" for language in ("de", "es", "zh", "ar", "ru")]
    [across] = sets("xquad-de-en", queries=10)
    english, german = built_in_set("en"), built_in_set("de")
    assert across.documents == english.documents
    assert set(across.queries.items()) <= set(german.queries.items())
    assert across.described().note == "10 of 1,190 queries"
    assert across.described().digest != sets("xquad-de", queries=10)[0].described().digest
    for wrong in ("xquad-xx", "xquad-en-de-es", "/no/such/folder"):
        with pytest.raises(UsageError, match="There is no"):
            sets(wrong)


def folder(at: Path, *, compressed: bool = False, documents: int = 40) -> Path:
    """A set in BEIR's layout with a split of its own, and queries that nothing answers."""
    lines = {
        "corpus.jsonl": [
            {"_id": f"d{number}", "title": "T", "text": f"text number{number}"} for number in range(documents)
        ],
        "queries.jsonl": [{"_id": f"q{number}", "text": f"number{number}"} for number in range(20)],
    }
    (at / "qrels").mkdir(parents=True)
    for name, rows in lines.items():
        text = "\n".join(map(json.dumps, rows)) + "\n\n"
        if compressed:
            (at / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (at / name).write_text(text, encoding="utf-8")
    pairs = [f"q{number}\td{number}\t1" for number in range(12)] + ["q13\td0\t0"]
    (at / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(pairs) + "\n")
    return at


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_in_beirs_layout(tmp_path: Path, compressed: bool) -> None:
    place = folder(tmp_path / "mine", compressed=compressed)
    [one] = search_sets([str(place)], split="dev", fetch=no_hub)
    assert (one.name, len(one.queries), len(one.documents)) == ("mine", 12, 40)
    assert one.documents["d3"] == "T text number3"
    with pytest.raises(UsageError, match="cannot be read as a retrieval set"):
        search_sets([str(place)], split="test", fetch=no_hub)


def test_judgements_may_be_lines_of_json_with_scores_that_are_no_whole_numbers(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine")
    rows = [{"query-id": f"q{number}", "corpus-id": f"d{number}", "score": 1.0} for number in range(12)]
    (place / "qrels" / "dev.tsv").unlink()
    (place / "qrels" / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [one] = search_sets([str(place)], split="dev", fetch=no_hub)
    assert one.relevant["q3"] == {"d3": 1}
    assert len(one.queries) == 12


def test_a_part_of_a_set_keeps_every_answer_and_always_the_same_others(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine")
    [part] = search_sets([str(place)], split="dev", most_documents=20, fetch=no_hub)
    [again] = search_sets([str(place)], split="dev", most_documents=20, fetch=no_hub)
    assert len(part.documents) == 20
    assert {f"d{number}" for number in range(12)} <= set(part.documents)
    assert part == again
    assert part.note == "20 of 40 documents: easier to search than all of them"
    [whole] = search_sets([str(place)], split="dev", most_documents=99, fetch=no_hub)
    assert (len(whole.documents), whole.note) == (40, "")


def test_a_data_set_of_the_hub_is_fetched_by_name_revision_and_split(tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def fetch(repo: str, revision: str | None, split: str) -> tuple[Path, Path]:
        asked.append((repo, revision, split))
        place = folder(tmp_path / repo)
        return place, (place / "qrels" / "dev.tsv").rename(tmp_path / "elsewhere.tsv")

    [one] = search_sets(["hub:mteb/msmarco@abc"], split="dev", fetch=fetch)
    assert asked == [("mteb/msmarco", "abc", "dev")]
    assert (one.name, len(one.queries)) == ("mteb/msmarco dev", 12)


# Planted differences -------------------------------------------------------------------------------------


def test_the_same_vectors_make_no_difference() -> None:
    report = ask(target(), target("ollama", noise=1e-6, seed=4))
    assert report.verdict == "no difference that matters"
    assert headline(report).startswith("no difference that matters: ollama against native, ndcg@10 +0.0000")
    assert not report.reasons
    assert 0.05 < report.scores[0].ndcg.estimate < 1


def test_a_degraded_embedder_is_found_and_its_worst_queries_named() -> None:
    chosen = sets("xquad-en", "xquad-de")
    report = ask(target(), target("ollama", noise=1.2), of=chosen)
    assert report.verdict == "worse"
    assert any(reason.startswith("ollama is worse than native: ndcg@10 -0.") for reason in report.reasons)
    assert report.lost[0].baseline_ndcg - report.lost[0].variant_ndcg == max(
        one.baseline_ndcg - one.variant_ndcg for one in report.lost
    )
    assert len(report.changes["ollama"]) == 480
    pooled = next(one for one in report.differences if (one.set, one.measure) == ("all sets", "ndcg@10"))
    assert np.mean(report.changes["ollama"]) == pytest.approx(pooled.change.estimate, abs=1e-5)


def test_texts_in_several_sets_are_embedded_once() -> None:
    chosen = sets("xquad-de", "xquad-de-en", queries=20)
    asked: list[str] = []
    one = target()

    def embed(texts: Sequence[str]) -> EmbedResult:
        asked.extend(texts)
        return one.embed(texts)

    collect(replace(one, embed=embed), chosen, lambda step, done: None, CancelToken())
    assert len(asked) == len(set(asked)) == work_of(chosen) == 20 + 2 * 240


def test_failed_texts_are_never_found_and_told() -> None:
    one = target("ollama")
    broken = next(iter(sets()[0].documents.values()))

    def embed(texts: Sequence[str]) -> EmbedResult:
        result = one.embed(texts)
        result.vectors[[place for place, text in enumerate(texts) if text == broken]] = np.nan
        return result

    report = ask(target(), replace(one, embed=embed))
    assert report.variants[1].failed == 1
    assert report.reasons[0] == "ollama gave no usable vector for 1 of 480 texts"


def test_a_backend_that_keeps_failing_ends_the_study_and_so_does_a_cancel() -> None:
    def embed(texts: Sequence[str]) -> EmbedResult:
        raise BackendError("down")

    with pytest.raises(BackendError, match="down"):
        ask(replace(target(), embed=embed))
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        collect(target(), sets(), lambda step, done: None, token)


# The interval --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.02, -0.011, "worse"),
        (0.011, 0.02, "better"),
        (-0.01, 0.01, "no difference that matters"),
        (-0.02, 0.0, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_a_verdict_is_the_whole_interval_against_the_threshold(
    low: float | None, high: float | None, verdict: str
) -> None:
    assert verdict_of(Interval(0.0, low, high), 0.01) == verdict


def test_the_interval_covers_what_it_promises_where_queries_share_answers() -> None:
    """400 studies of 60 answers with five questions each, whose changes hang together; true mean 0."""
    rng = np.random.default_rng(8)
    clusters = [number // 5 for number in range(300)]
    covered = naive = 0
    for _ in range(400):
        shared = np.repeat(rng.standard_normal(60) * (rng.random(60) < 0.4), 5)
        values = shared + 0.5 * rng.standard_normal(300)
        found, plain = clustered_mean(values, clusters), clustered_mean(values, range(300))
        assert found.low is not None
        assert found.high is not None
        assert plain.low is not None
        assert plain.high is not None
        covered += found.low <= 0 <= found.high
        naive += plain.low <= 0 <= plain.high
    assert 0.93 <= covered / 400 <= 0.97
    assert naive / 400 < 0.90  # what taking each query for independent would give


def test_alone_in_its_cluster_each_query_gives_the_plain_t_interval() -> None:
    values = np.random.default_rng(2).standard_normal(50)
    found = clustered_mean(values, range(50))
    half = 2.0095752371292397 * values.std(ddof=1) / np.sqrt(50)
    assert found.low == pytest.approx(values.mean() - half, abs=1e-12)
    assert clustered_mean(values[:9], range(9)).low is None


@pytest.mark.parametrize(("noise", "alike"), [(0.02, 38), (0.2, 0)])
def test_a_equals_a_is_never_called_a_difference(noise: float, alike: int) -> None:
    """Two noisy readings of the same thing, 40 times: alike where that can be told, else undecided."""
    rng = np.random.default_rng(6)
    [one] = sets(queries=200)
    base = rng.random(200)

    variant = ask(target(), of=[one]).variants[0]

    def noisy(name: str) -> Found:
        values = np.clip(base + noise * rng.standard_normal(200), 0, 1)
        by_query = dict(zip(one.queries, map(float, values), strict=True))
        kinds: dict[QualityMeasure, dict[str, float]] = dict.fromkeys(MEASURES, by_query)
        return Found(replace(variant, name=name), {one.name: kinds})

    verdicts = [judge([noisy("a"), noisy("b")], [one]).verdict for _ in range(40)]
    assert verdicts.count("no difference that matters") >= alike
    assert not {"better", "worse"} & set(verdicts)


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        ({64: 9, 512: 0}, ""),
        ({64: 9, 512: 1, 8192: 0}, ""),
        (
            {512: 0, 8192: 0},
            "no text has more than 512 tokens, so that limits of 512 and 8,192 cannot differ",
        ),
        (
            {64: 9, 8192: 0, 512: 0},
            "no text has more than 512 tokens, so that limits of 512 and 8,192 cannot",
        ),
    ],
)
def test_limits_that_cut_no_text_are_told_to_be_untried(cut: dict[int, int], told: str) -> None:
    def limited(limit: int, count: int) -> QualityTarget:
        plain = target(f"native max_tokens={limit}")

        def embed(texts: Sequence[str]) -> EmbedResult:
            return replace(plain.embed(texts), truncated=tuple(range(count)) if len(texts) > 1 else ())

        return replace(plain, changes={"max_tokens": str(limit)}, embed=embed)

    report = ask(*(limited(limit, count) for limit, count in cut.items()), of=sets(queries=20))
    assert report.verdict in ("no difference that matters", "undecided")
    assert any(told in reason for reason in report.reasons) if told else not report.reasons
