"""Single texts under the lens: their pieces, and the passages nearest to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedctl.demo.session import demo_model_folder
from embedctl.engine.corpora import MOST_PASSAGES, built_in_corpus
from embedctl.errors import BackendError, Cancelled, UsageError
from embedctl.progress import CancelToken
from embedctl.settings import Settings
from tests.support.engines import Rig, rig
from tests.support.fake_backend import FakeBackend, vector_of

PASSAGES = [f"passage {number}" for number in range(40)]


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, sampling=False) as made:
        yield made


class TestTokens:
    def test_the_folder_is_enough(self, r: Rig) -> None:
        r.hub.folder = demo_model_folder  # type: ignore[method-assign, assignment]
        found = r.engine.tokens(["unbelievable", "x " * 300])
        assert found.absence is None
        assert [piece.text for piece in found.texts[0].pieces] == ["[CLS]", "unbelievable", "[SEP]"]
        assert (found.limit, found.limit_source) == (256, "sentence_bert_config.json")
        assert (found.texts[1].read, found.texts[1].cut) == (256, (507, 600))
        assert r.native.calls == []

    def test_a_loaded_backend_says_how_much_it_reads(self, r: Rig) -> None:
        r.hub.folder = demo_model_folder  # type: ignore[method-assign, assignment]
        r.engine.load("native").wait(30)
        r.native._status = replace(r.native._status, max_tokens=8)
        found = r.engine.tokens(["one two three four five six seven"])
        assert (found.limit, found.limit_source, found.texts[0].read) == (8, "native, as it is loaded", 8)

    def test_the_setting_counts_before_a_load(self, tmp_path: Path) -> None:
        settings = Settings.model_validate({"native": {"max_tokens": 64}})
        with rig(tmp_path, settings, sampling=False) as r:
            r.hub.folder = demo_model_folder  # type: ignore[method-assign, assignment]
            found = r.engine.tokens(["one"])
        assert (found.limit, found.limit_source) == (64, "setting native.max_tokens")

    def test_without_the_model_it_says_what_to_do(self, r: Rig) -> None:
        found = r.engine.tokens(["one"])
        assert (found.texts, found.limit) == ((), None)
        assert found.absence is not None and "models download" in found.absence.remedy

    def test_a_damaged_tokenizer_is_told(self, r: Rig, tmp_path: Path) -> None:
        r.hub.folder = lambda: tmp_path  # type: ignore[method-assign, assignment, return-value]
        assert "no tokenizer.json" in (r.engine.tokens(["one"]).absence or pytest.fail()).what
        (tmp_path / "tokenizer.json").write_text("{")
        absence = r.engine.tokens(["one"]).absence
        assert absence is not None and "cannot be read" in absence.what and "verify" in absence.remedy


class TestNearest:
    def test_passages_come_by_their_cosine_with_each_text(self, r: Rig) -> None:
        answer = r.engine.embed(["passage 7", "another"])
        found = r.engine.nearest(answer, passages=PASSAGES, count=2)
        assert (found.found[0][0].index, found.found[0][0].text) == (7, "passage 7")
        expected = sorted((float(vector_of("another") @ vector_of(text)) for text in PASSAGES), reverse=True)
        assert [p.cosine for p in found.found[1]] == pytest.approx(expected[:2], abs=1e-6)
        assert (found.backend, found.passages, found.embedded, found.without_vector) == ("native", 40, 40, 0)

    def test_a_corpus_is_embedded_once_for_each_backend(self, r: Rig) -> None:
        for backend, new in (("native", 40), ("native", 0), ("ollama", 40), ("ollama", 0)):
            answer = r.engine.embed(["a"], backend=backend)
            assert r.engine.nearest(answer, passages=PASSAGES).embedded == new
        assert r.ollama.embedded == 2 + 40

    def test_what_was_done_before_a_cancellation_is_kept(self, r: Rig) -> None:
        answer, cancel = r.engine.embed(["a"]), CancelToken()
        r.native.on_embed = lambda texts: cancel.cancel()
        with pytest.raises(Cancelled):
            r.engine.nearest(answer, passages=PASSAGES, cancel=cancel)
        r.native.on_embed = lambda texts: None
        assert 0 < r.engine.nearest(answer, passages=PASSAGES).embedded < 40

    def test_impatience_gives_what_there_is_and_says_what_waits(self, r: Rig) -> None:
        answer = r.engine.embed(["passage 20"])
        waiting = []
        for _ in range(3):
            found = r.engine.nearest(answer, passages=PASSAGES, count=40, patience=0.0)
            waiting.append((found.embedded, found.waiting, len(found.found[0])))
        assert waiting == [(8, 32, 8), (8, 24, 16), (8, 16, 24)]
        assert found.found[0][0].index == 20

    def test_what_has_no_vector_is_not_found_and_finds_nothing(self, r: Rig) -> None:
        r.native.failing = {"passage 7": "too odd", "odd": "too odd"}
        answer = r.engine.embed(["odd", "passage 8"])
        found = r.engine.nearest(answer, passages=PASSAGES, count=40)
        assert found.found[0] == ()
        assert (found.without_vector, len(found.found[1])) == (1, 39)
        assert 7 not in [p.index for p in found.found[1]]

    def test_vectors_that_nobody_can_name_are_not_kept_and_not_waited_for(self, r: Rig) -> None:
        r.engine.embed(["a"])
        r.native.fingerprint = lambda: replace(FakeBackend("native").fingerprint(), dimension=None)  # type: ignore[method-assign]
        answer = r.engine.embed(["a"])
        assert answer.fingerprint is None
        for _ in range(2):
            found = r.engine.nearest(answer, passages=PASSAGES, patience=0.0)
            assert (found.embedded, found.waiting) == (40, 0)

    def test_without_any_vector_nothing_is_embedded_to_be_searched(self, r: Rig) -> None:
        r.native.failing = {"odd": "too odd"}
        found = r.engine.nearest(r.engine.embed(["odd"]), passages=PASSAGES, patience=0.0)
        assert (found.embedded, found.waiting, found.found) == (0, 0, ((),))

    def test_vectors_of_another_load_are_not_mixed(self, r: Rig) -> None:
        answer = r.engine.embed(["a"])
        r.native.dtype = "float16"
        with pytest.raises(BackendError, match="no longer the one") as caught:
            r.engine.nearest(answer, passages=PASSAGES)
        assert caught.value.remedy

    @pytest.mark.parametrize("count", [0, MOST_PASSAGES + 1])
    def test_no_passages_and_too_many_are_refused(self, r: Rig, count: int) -> None:
        with pytest.raises(UsageError) as caught:
            r.engine.nearest(r.engine.embed(["a"]), passages=["x"] * count)
        assert caught.value.remedy

    def test_the_built_in_passages_are_of_six_languages_and_none_comes_twice(self, r: Rig) -> None:
        corpus = built_in_corpus()
        assert len(set(corpus.texts)) == len(corpus.texts) == 120
        assert {corpus.groups.count(language) for language in set(corpus.groups)} == {20}
        found = r.engine.nearest(r.engine.embed([corpus.texts[5]]))
        assert found.found[0][0].index == 5
        assert found.found[0][0].group == corpus.groups[5]
        assert np.isclose(found.found[0][0].cosine, 1.0)
