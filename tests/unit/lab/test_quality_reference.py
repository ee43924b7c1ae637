"""The measures against sentence-transformers' own evaluator, on the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl.lab.quality_search import MEASURES, Search, measure, names_of

pytestmark = pytest.mark.torch


def test_equal_to_sentence_transformers_to_a_billionth() -> None:
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    rng = np.random.default_rng(12)
    documents = rng.standard_normal((700, 24)).astype(np.float32)
    nearest = rng.integers(0, 700, 60)
    queries = documents[nearest] + 0.9 * rng.standard_normal((60, 24)).astype(np.float32)
    asked, searched = ([f"{kind}{n:03}" for n in range(count)] for kind, count in (("q", 60), ("d", 700)))
    relevant = {
        query: {searched[own], *(searched[other] for other in rng.integers(0, 700, number % 4))}
        for number, (query, own) in enumerate(zip(asked, nearest, strict=True))
    }
    evaluator = InformationRetrievalEvaluator(
        dict.fromkeys(asked, ""), dict.fromkeys(searched, ""), relevant, ndcg_at_k=[10], mrr_at_k=[10],
        accuracy_at_k=[10], precision_recall_at_k=[100], map_at_k=[10], corpus_chunk_size=100,
    )  # fmt: skip

    class Given:
        """A model whose vectors are those above, whatever the texts."""

        model_card_data = None
        similarity_fn_name = "cosine"

        @staticmethod
        def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(a.double()) @ torch.nn.functional.normalize(b.double()).T

    def embed(model: object, texts: list[str], **_: object) -> torch.Tensor:
        if len(texts) == len(asked):
            return torch.from_numpy(queries)
        start = given.pop(0)
        return torch.from_numpy(documents[start : start + len(texts)])

    given = list(range(0, 700, 100))
    evaluator.embed_inputs = embed  # type: ignore[method-assign]
    evaluator.score_functions = {"cosine": Given.similarity}
    evaluator.score_function_names = ["cosine"]
    theirs = evaluator.compute_metrices(Given())["cosine"]

    search = Search(queries)
    for start in range(0, 700, 90):
        search.add(documents[start : start + 90])
    found = names_of(search.found(), asked, searched)
    ours = measure(found, {query: dict.fromkeys(names, 1) for query, names in relevant.items()})
    means = {kind: np.mean(list(ours[kind].values())) for kind in MEASURES}
    assert 0.1 < means["ndcg@10"] < 0.9
    assert means["ndcg@10"] == pytest.approx(theirs["ndcg@k"][10], abs=1e-9)
    assert means["mrr@10"] == pytest.approx(theirs["mrr@k"][10], abs=1e-9)
    assert means["recall@100"] == pytest.approx(theirs["recall@k"][100], abs=1e-9)
