"""Where texts lie in a packed row, and how attention is tiled over it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from embedctl.encoder.packing import Packed, Run, attention_tiles, most_tiles, pack, runs


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_texts_stand_one_after_the_other_with_positions_of_their_own() -> None:
    packed = pack([ids(0, 7, 2), ids(0, 2), ids(0, 8, 9, 2)], first_position=2, skipped_id=1)
    assert packed.ids.tolist() == [0, 7, 2, 0, 2, 0, 8, 9, 2]
    assert packed.positions.tolist() == [2, 3, 4, 2, 3, 2, 3, 4, 5]
    assert packed.bounds.tolist() == [0, 3, 5, 9]
    assert (packed.tokens, packed.texts, packed.lengths.tolist()) == (9, 3, [3, 2, 4])


def test_bert_counts_positions_from_zero_and_padding_tokens_too() -> None:
    packed = pack([ids(5, 0, 6)], first_position=0, skipped_id=None)
    assert packed.positions.tolist() == [0, 1, 2]


def test_a_padding_token_spelled_out_in_a_text_takes_no_position() -> None:
    packed = pack([ids(0, 1, 7, 2), ids(0, 2)], first_position=2, skipped_id=1)
    assert packed.positions.tolist() == [2, 1, 3, 4, 2, 3]


def test_packing_leaves_the_callers_arrays_alone() -> None:
    text = ids(0, 1, 2)
    pack([text], first_position=2, skipped_id=1)
    assert text.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([4], [Run(0, 1, 4)]),
        ([4, 4, 3], [Run(0, 2, 4), Run(8, 1, 3)]),
        ([2, 3, 3, 2], [Run(0, 1, 2), Run(2, 2, 3), Run(8, 1, 2)]),
    ],
)
def test_neighbours_of_equal_length_make_a_run(lengths: list[int], expected: list[Run]) -> None:
    assert runs(ids(*lengths)) == expected


def test_short_texts_share_a_tile_as_long_as_they_fit_in_whole() -> None:
    assert attention_tiles([3, 3, 3], 8).tolist() == [[0, 6, 0, 0], [6, 9, 6, 0]]


def test_a_long_text_has_tiles_of_its_own_that_see_all_its_keys() -> None:
    assert attention_tiles([2, 10, 8], 8).tolist() == [
        [0, 2, 0, 0],
        [2, 10, 2, 12],
        [10, 12, 2, 12],
        [12, 20, 12, 0],
    ]


@pytest.mark.parametrize("block", [16, 64])
def test_tiles_cover_every_row_once_and_hold_whole_texts_or_one_text(block: int) -> None:
    generator = random.Random(block)
    mixes = [[block + 1, 1] * 40, [1] * 200, [block] * 5, [block // 2 + 1] * 30, [8192]]
    mixes += [[generator.choice((1, 2, 19, block, block + 1, 300)) for _ in range(60)] for _ in range(50)]
    for lengths in mixes:
        tiles = attention_tiles(lengths, block)
        assert len(tiles) <= most_tiles(sum(lengths), block)
        bounds = np.concatenate(([0], np.cumsum(lengths)))
        row = 0
        for first, last, low, high in tiles.tolist():
            assert first == row and first < last <= first + block
            row = last
            if high == 0:
                assert low == first and {first, last} <= set(bounds.tolist())
            else:
                text = int(np.searchsorted(bounds, first, side="right")) - 1
                assert (low, high) == (bounds[text], bounds[text + 1]) and last <= high
        assert row == sum(lengths)


def test_a_packed_batch_of_one_text_is_that_text() -> None:
    packed = pack([ids(3, 4)], first_position=5, skipped_id=None)
    assert isinstance(packed, Packed)
    assert packed.positions.tolist() == [5, 6]
