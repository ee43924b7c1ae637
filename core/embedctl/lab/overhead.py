"""The lab's own share of a latency, measured with targets that embed nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from embedctl.lab.statistics import percentile
from embedctl.lab.targets import Pace, Target, send
from embedctl.records import EmbedResult, Fingerprint

OWN_SHARE: Final = "the lab's own share"
"""How the note begins."""
_REQUESTS: Final = 300
_WAITS: Final = 20
_TYPICAL_S: Final = 0.010


def overhead_note(pace: Pace) -> str:
    """What the lab adds to a request: by a target that does nothing, and by one that waits for 10 ms.

    The second shows what the sampler's and the screen's threads add as well, together with the system's own
    delay in waking a thread, so that it is an upper end.
    """
    nothing = [send(_target(lambda: None), ["a text"], pace.now).seconds for _ in range(_REQUESTS)]
    waiting = _target(lambda: pace.sleep(_TYPICAL_S))
    late = [send(waiting, ["a text"], pace.now).seconds - _TYPICAL_S for _ in range(_WAITS)]
    added, most = percentile(nothing, 0.50) or 0.0, percentile(late, 0.50) or 0.0
    return (
        f"{OWN_SHARE}: {added * 1e6:.1f} µs a request with a target that does nothing; at most "
        f"{most / _TYPICAL_S:.1%} of a {_TYPICAL_S * 1e3:.0f} ms answer"
    )


def _target(work: Callable[[], None]) -> Target:
    import numpy as np

    result = EmbedResult(np.ones((1, 1024), np.float32), "none", None, (), (), 0.0)
    mark = Fingerprint("none", None, "", None, None, None, True, None, None, None, None, None, None, None)

    def embed(_: Sequence[str], __: int | None) -> EmbedResult:
        work()
        return result

    return Target("none", embed, lambda: mark)
