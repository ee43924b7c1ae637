"""Parity, neighbours and the verdict, on vectors whose figures can be worked out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedctl.lab.check import judge
from embedctl.lab.check_evidence import Evidence
from embedctl.lab.check_texts import OWN, texts_for_check
from embedctl.lab.correctness import gate
from embedctl.lab.neighbours import ndcg, nearest, overlap
from embedctl.lab.parity import low_percentile, parity_groups, steps, worst_texts
from embedctl.lab.statistics import clustered_mean
from embedctl.records import Fingerprint, LengthLimit, Outcome
from embedctl.similarity import cosines
from tests.support.check_targets import few_texts
from tests.support.ollama_faults import count_words

DIMENSION = 32
TEXTS = few_texts()
LONG = "word " * 2_100


def shown(name: str, vectors: np.ndarray, limit: int = 8192, told: bool = True) -> Evidence:
    mark = Fingerprint(
        name, "1", "m", None, None, None, True, 8192, vectors.shape[1], None, None, None, None, None
    )
    return Evidence(
        name,
        mark,
        vectors.astype(np.float32),
        asked=len(vectors),
        widths={vectors.shape[1]},
        limit=LengthLimit(name, "tokens", limit, limit, False, False, told, limit, 3),
    )


def unit(seed: int = 0, count: int = len(TEXTS.texts)) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turned(vectors: np.ndarray, cosine: float, seed: int = 1) -> np.ndarray:
    """Each row at exactly this cosine to the one given."""
    away = np.random.default_rng(seed).standard_normal(vectors.shape)
    away -= np.sum(away * vectors, axis=1, keepdims=True) * vectors
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * away


def outcome(part: str, a: Evidence, b: Evidence) -> Outcome:
    report = judge([a, b], TEXTS, count_words)
    return next(row.outcome for row in report.rows if row.part == part and row.backend is None)


def test_cosines_go_by_direction_and_absent_is_nan() -> None:
    a = np.array([[2.0, 0], [1, 0], [1, 0], [0, 0], [np.nan, 1]])
    b = np.array([[5.0, 0], [0, 3], [-1, 0], [1, 0], [0, 1]])
    np.testing.assert_array_equal(cosines(a, b), [1, 0, -1, np.nan, np.nan])
    assert np.isnan(cosines(a, b[:, :1])).all()


def test_the_first_percentile_is_a_value_that_was_measured() -> None:
    values = np.arange(1_000) / 1_000
    assert low_percentile(values) == pytest.approx(0.009)
    assert low_percentile(values[:50]) == 0.0
    assert low_percentile(values[:0]) is None


def test_groups_are_languages_and_lengths() -> None:
    found = np.array([1.0, 0.5, np.nan, 0.9])
    groups = parity_groups(found, ["en", "de", "de", "en"], [16, 17, 20, 600])
    assert [(group.name, group.texts, group.least) for group in groups] == [
        ("all", 3, 0.5),
        ("en", 2, 0.9),
        ("de", 1, 0.5),
        ("up to 16 tokens", 1, 1.0),
        ("17–32 tokens", 1, 0.5),
        ("over 512 tokens", 1, 0.9),
    ]
    worst = worst_texts(found, ["a", "b", "c", "d"], ["en", "de", "de", "en"], None)
    assert [(one.text, one.cosine, one.tokens) for one in worst] == [
        ("b", 0.5, None), ("d", 0.9, None), ("a", 1.0, None),
    ]  # fmt: skip


def test_steps_are_between_neighbouring_lengths_only() -> None:
    vectors = {512: np.array([1.0, 0]), 513: np.array([0, 1.0]), 600: np.array([1.0, 0])}
    assert steps(vectors) == {513: pytest.approx(1.0)}


def test_neighbours_overlap_and_retrieval_scores() -> None:
    documents = np.eye(4)
    queries = np.array([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9]])
    found = nearest(queries, documents, 2)
    np.testing.assert_array_equal(found, [[0, 1], [3, 2]])
    assert overlap(found, np.array([[1, 0], [3, 0]])) == 0.75
    np.testing.assert_allclose(ndcg(found, [1, 3]), [1 / np.log2(3), 1.0])
    np.testing.assert_allclose(ndcg(found, [2, 0]), [0, 0])


def test_the_loss_across_indexes_takes_the_questions_on_one_passage_together() -> None:
    """They are hard or easy together: the interval is that of as many draws as there are passages."""
    a, rng = unit(), np.random.default_rng(4)
    b = a + 0.25 * rng.standard_normal(a.shape)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    report = judge([shown("native", a), shown("ollama", b)], TEXTS, count_words)
    across = next(one for one in report.retrieval if (one.documents, one.queries) == ("native", "ollama"))
    asked, documents = list(TEXTS.queries), list(TEXTS.documents)
    wanted = [documents.index(document) for document in TEXTS.relevant]
    alone, other = (ndcg(nearest(queries[asked], a[documents]), wanted) for queries in (a, b))
    expected = clustered_mean((other - alone).tolist(), wanted)
    assert 10 <= len(set(wanted)) < len(wanted)
    assert (across.difference, across.low, across.high) == (expected.estimate, expected.low, expected.high)


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [(0.9999, Outcome.OK), (0.995, Outcome.LIMIT), (0.98, Outcome.BAD), (0.0, Outcome.BAD)],
)
def test_parity_is_judged_by_its_thresholds(cosine: float, expected: Outcome) -> None:
    a = unit()
    assert outcome("parity", shown("native", a), shown("ollama", turned(a, cosine))) is expected


def test_one_wrong_text_among_many_is_not_lost_in_a_percentile() -> None:
    a, count = unit(), len(TEXTS.texts)
    b = a.copy()
    b[-1] = -b[-1]
    assert count < 100
    report = judge([shown("native", a), shown("ollama", b)], TEXTS, count_words)
    assert report.verdict == "not safe"
    assert report.worst[0].text == TEXTS.texts[-1][:240]


def test_a_mirrored_index_finds_its_own_neighbours_and_not_the_others() -> None:
    a = unit()
    mirrored = a * np.where(np.arange(DIMENSION) % 2, 1, -1)
    report = judge([shown("native", a), shown("ollama", mirrored)], TEXTS, count_words)
    assert report.overlap == 1.0
    own, other, _, _ = report.retrieval
    assert own.ndcg == other.ndcg


def test_dimensions_that_differ_are_named() -> None:
    a = unit()
    report = judge([shown("native", a), shown("ollama", a[:, :16])], TEXTS, count_words)
    assert "the dimensions differ: 32 by native and 16 by ollama" in report.reasons


def test_a_limit_that_one_tells_of_is_told_for_both() -> None:
    a = unit()
    report = judge([shown("native", a), shown("ollama", a, limit=2048)], TEXTS, count_words)
    assert report.verdict == "safe with limits"
    assert report.reasons == ("texts over 2,048 tokens are read by native up to 8,192 and not by ollama",)


def test_what_one_cuts_is_left_out_of_parity_and_neighbours() -> None:
    a = unit()
    long = [place for place, text in enumerate(TEXTS.texts) if count_words([text]) > 100]
    b = a.copy()
    b[long] = -b[long]
    assert 0 < len(long) < 20
    report = judge([shown("native", a), shown("ollama", b, limit=100)], TEXTS, count_words)
    assert (report.verdict, report.overlap) == ("safe with limits", 1.0)
    assert report.parity[0].texts == len(TEXTS.texts) - len(long)
    report = judge([shown("native", a), shown("ollama", b, limit=8)], TEXTS, count_words)
    assert report.overlap is None
    assert any("neighbours were not compared: only" in reason for reason in report.reasons)


def test_the_users_own_texts_over_the_lesser_limit_are_not_safe() -> None:
    texts = few_texts([LONG, "a short one"])
    a = unit(count=len(texts.texts))
    b = a.copy()
    b[0] = -b[0]  # cut: another vector, and left out of parity for its length
    both = [shown("native", a), shown("ollama", b, limit=2048)]
    report = judge(both, texts, count_words)
    assert report.verdict == "not safe"
    assert report.reasons[0] == "1 of your 2 texts are over the 2,048 tokens that ollama reads"
    assert next(group for group in report.parity if group.name == OWN).texts == 1


def test_vectors_that_arrive_without_unit_norm_fail_the_gate() -> None:
    [row] = [row for row in gate(shown("b", 1.5 * unit()), TEXTS.texts) if row.part == "vectors"]
    assert row.outcome is Outcome.BAD
    assert "without unit norm (90 texts, norms 1.5 to 1.5)" in row.finding


def test_many_twins_fail_the_gate_and_the_same_words_in_capitals_do_not() -> None:
    a = unit()
    a[:20] = a[20:40]
    [row] = [row for row in gate(shown("b", a), TEXTS.texts) if row.part == "vectors"]
    assert row.finding == "b gives 40 of 90 texts the vector of another text"
    same = [f"Text {number // 2}".upper() if number % 2 else f"text {number // 2}" for number in range(90)]
    [row] = [
        row for row in gate(shown("b", np.repeat(unit(count=45), 2, axis=0)), same) if row.part == "vectors"
    ]
    assert row.outcome is Outcome.OK


def test_two_widths_of_one_backend_fail_the_gate() -> None:
    evidence = replace(shown("b", unit()), widths={32, 16})
    assert "b gives vectors of 16 and 32 dimensions" in [row.finding for row in gate(evidence, TEXTS.texts)]


def test_the_built_in_texts_are_those_that_are_said() -> None:
    whole = texts_for_check()
    assert len(whole.texts) == len(set(whole.texts)) == 1_120
    assert len(whole.documents) == 120
    assert len(whole.texts) - len(whole.documents) == 1_000
    assert all(0.14 < whole.groups.count(language) / 1_120 < 0.19 for language in set(whole.groups))
    assert all(place in whole.documents for place in whole.relevant)
    own = texts_for_check(["mine", "thine"], "mine.txt")
    assert own.texts[:2] == ("mine", "thine")
    assert own.groups[:3] == (OWN, OWN, "en")
    assert own.label.startswith("mine.txt, 2 texts, and xquad-6-languages, 250 questions, 120 passages ")
    question, passage = own.texts[own.queries[0]], own.texts[own.relevant[0]]
    assert ("points" in question, "308 points" in passage) == (True, True)
