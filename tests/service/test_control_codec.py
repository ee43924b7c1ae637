"""Values that cross: each comes back as what it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedctl import records
from embedctl.control.codec import decode, encode
from embedctl.events import ConnectionChanged, JobChanged
from embedctl.records import BackendState, Event, JobState, JobUpdate
from embedctl.settings import NativeSettings, Settings
from embedctl.worker.frames import FrameError
from tests.support import canned


def crossed(value: object) -> Any:
    length, payload = encode(value)
    return decode(bytearray(payload), length)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1.5, "", "ü 🙂 \ud800 \x00", (), (1, ("a",)), [1, [2]], frozenset({3, 1}),
        b"\x00\xff", {"a": 1}, {}, {1: "int key", ("t",): 2}, {"$": "looks like ours"}, BackendState.READY,
        Event(1.0, "note", "t", detail={"list": [1], "tuple": (1,), "none": None}), canned.native(),
        JobChanged(JobUpdate(1, "run", "t", JobState.DONE, "", 2.0, result=canned.run())),
        JobUpdate(1, "remove", "t", JobState.DONE, "", 2.0, result=17),
        ConnectionChanged(False, "w", "y", "r"),
        canned.sample(), canned.gb10(), canned.model(), canned.findings(), canned.switch_report(),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_comes_back_equal_and_of_its_kind(value: object) -> None:
    back = crossed(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_no_word_for(value: float) -> None:
    assert repr(crossed((value,))[0]) == repr(value)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "|b1", ">f4"])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (), (7,)])
def test_arrays_keep_bytes_kind_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    odd, back = crossed((b"x", array))
    assert odd == b"x"
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_a_slice_that_is_not_contiguous_and_a_number_of_numpy() -> None:
    array = np.arange(12.0).reshape(3, 4)[:, ::2]
    back, number = crossed((array, np.float32(1.5)))
    assert np.array_equal(back, array)
    assert number == 1.5


def test_settings_cross_without_the_environment_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(native=NativeSettings(dtype="float32"))
    length, payload = encode(settings)
    monkeypatch.setenv("EMBEDCTL_NATIVE__DTYPE", "bfloat16")
    assert decode(payload, length) == settings


def test_every_record_is_known() -> None:
    from embedctl.control.codec import _records

    public = {name: getattr(records, name) for name in records.__all__}
    classes = {name for name, found in public.items() if isinstance(found, type) and found.__name__ == name}
    assert len(classes) > 30
    assert classes <= _records().keys()


@pytest.mark.parametrize("value", [object(), Path("/x"), {1j}, np.array([object()])])
def test_what_cannot_cross_is_refused_by_the_sender(value: object) -> None:
    with pytest.raises(TypeError, match="cannot cross"):
        encode(value)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"nothing", b'{"$":"Popen","args":["true"]}', b'{"$":"Event"}', b'{"$":"Event","x":1}',
        b'{"$":"array","at":0,"dtype":"<f4","shape":[9]}', b'{"$":"array","at":0,"dtype":"O","shape":[1]}',
        b'{"$":"bytes"}', b'{"$":["x"]}', b'{"$":"BackendState","value":"new"}', b"\xff",
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode(payload, len(payload))
