"""When an old check no longer stands."""

from __future__ import annotations

from typing import Any

import pytest

from embedctl.lab.changes import changes
from tests.support.canned import fingerprint


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({}, {}, ()),
        ({"backend_version": "0.33.0"}, {"backend_version": "0.34.2"}, ("backend_version: 0.33.0 → 0.34.2",)),
        ({"revision": "79076426"}, {"revision": "11111111"}, ("revision: 79076426 → 11111111",)),
        ({"driver": "580.95"}, {"driver": "590.10"}, ("driver: 580.95 → 590.10",)),
        ({"options": {"num_batch": 8192}}, {"options": {"num_batch": 512}}, ("num_batch: 8192 → 512",)),
        ({"dtype": "float16"}, {"dtype": None}, ()),
        ({"dtype": None}, {"dtype": "float16"}, ()),
        ({"torch": "2.11.0+cu130"}, {"torch": "2.11.0"}, ()),
        ({"torch": "2.11.0+cu130"}, {"torch": "2.12.0"}, ("torch: 2.11.0+cu130 → 2.12.0",)),
        ({"torch": "2.11.0+cu130"}, {"torch": "2.11.0+cpu"}, ("torch: 2.11.0+cu130 → 2.11.0+cpu",)),
        ({"machine": "a"}, {"machine": "b"}, ()),
    ],
)
def test_what_counts_as_a_change(then: dict[str, Any], now: dict[str, Any], told: tuple[str, ...]) -> None:
    found = changes([fingerprint("ollama", **then)], [fingerprint("ollama", **now)], {}, {})
    assert found == tuple(f"ollama {one}" for one in told)


def test_settings_and_missing_backends_count() -> None:
    both = [fingerprint("native"), fingerprint("ollama")]
    assert changes(both, both[:1], {}, {}) == ("ollama is gone",)
    assert changes(
        [], both, {"native.dtype": "auto", "old": "1"}, {"native.dtype": "float32", "new": "1"}
    ) == ("native.dtype: auto → float32",)


def test_what_a_setting_changed_is_told_once() -> None:
    then, now = ([fingerprint("ollama", options={"num_batch": size})] for size in (8192, 512))
    before, after = {"ollama.num_batch": "8192"}, {"ollama.num_batch": "512"}
    assert changes(then, now, before, after) == ("ollama.num_batch: 8192 → 512",)
