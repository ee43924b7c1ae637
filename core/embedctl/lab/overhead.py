"""The lab's own share of a latency, measured with a target that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from embedctl.lab.statistics import percentile
from embedctl.lab.targets import Target, send
from embedctl.records import EmbedResult, Fingerprint

_REQUESTS: Final = 300
_TYPICAL_MS: Final = 10.0


def overhead_note(now: Callable[[], float]) -> str:
    """What timing, counting and the threads beside it add to a request, at the median and at p95."""
    target = _idle_target()
    times = [send(target, ["a text"], now).seconds * 1e3 for _ in range(_REQUESTS)]
    median, p95 = percentile(times, 0.50) or 0.0, percentile(times, 0.95) or 0.0
    return (
        f"the lab's own share: {median * 1e3:.1f} µs a request (p95 {p95 * 1e3:.1f} µs), "
        f"{median / _TYPICAL_MS:.2%} of {_TYPICAL_MS:g} ms; with a target that does nothing"
    )


def _idle_target() -> Target:
    import numpy as np

    result = EmbedResult(np.ones((1, 1024), np.float32), "none", None, (), (), 0.0)
    mark = Fingerprint("none", None, "", None, None, None, True, None, None, None, None, None, None, None)

    def embed(_: Sequence[str], __: int | None) -> EmbedResult:
        return result

    return Target("none", embed, lambda: mark)
