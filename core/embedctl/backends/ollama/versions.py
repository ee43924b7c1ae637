"""Which Ollama versions can be used, and what is known to be wrong with some of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]

MINIMUM_VERSION: Version = (0, 3, 4)
"""The first release announced with `/api/embed` and its list of inputs (BerriAI/litellm#5291)."""


@dataclass(frozen=True, slots=True)
class KnownFault:
    """A fault of some server versions that touches embedding.

    Attributes:
        first: The first version it was seen in; None: not known, or all.
        fixed: The first version without it; None: not known to be fixed.
        only_on: Where it shows: `"unified memory"` (DGX Spark and its like) or empty for everywhere.
        what: What goes wrong.
        remedy: What helps.
        source: Where it was reported.
    """

    first: Version | None
    fixed: Version | None
    only_on: str
    what: str
    remedy: str
    source: str

    def concerns(self, version: Version) -> bool:
        return (self.first is None or version >= self.first) and (self.fixed is None or version < self.fixed)


KNOWN_FAULTS: tuple[KnownFault, ...] = (
    KnownFault(
        first=None,
        fixed=(0, 12, 6),
        only_on="unified memory",
        what="NVML's missing memory figures on GB10 are not handled, so the GPU may not be used",
        remedy="update Ollama to 0.12.6 or newer",
        source="Ollama's source, discover of NVML memory",
    ),
    KnownFault(
        first=(0, 13, 5),
        fixed=None,
        only_on="",
        what="a text over the context length may be refused although truncation was asked for",
        remedy="keep num_ctx and num_batch at the model's context length, or shorten such texts",
        source="ollama/ollama#14186",
    ),
    KnownFault(
        first=None,
        fixed=None,
        only_on="",
        what="bge-m3 answers NaN for some plain texts on some GPUs, and one such text fails its whole batch",
        remedy="embedctl isolates such a text and returns the rest; the native backend embeds it",
        source="ollama/ollama#13572, #14657, #15582, #16625",
    ),
    KnownFault(
        first=None,
        fixed=(0, 30, 0),
        only_on="",
        what="vectors were reported to jump at 513, 1,025 and 1,537 tokens",
        remedy="update Ollama to 0.30 or newer, which runs llama-server",
        source="ollama/ollama#11856",
    ),
    KnownFault(
        first=(0, 30, 0),
        fixed=(0, 32, 2),
        only_on="unified memory",
        what="loads stall near 80 % while the page cache fills the memory pool",
        remedy="update Ollama to 0.32.2 or newer, which reads model files around the page cache",
        source="ollama/ollama#16480",
    ),
    KnownFault(
        first=(0, 30, 0),
        fixed=None,
        only_on="",
        what="texts over 2,048 tokens are cut silently unless num_batch is sent with num_ctx",
        remedy="keep ollama.num_batch at ollama.num_ctx (embedctl's default)",
        source="ollama/ollama#14259",
    ),
)


def parse_version(text: str) -> Version | None:
    """`"0.33.0-rc1"` → `(0, 33, 0)`; None for something that is no version, such as a development build."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    if match is None:
        return None
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def faults_of(text: str, *, unified_memory: bool | None) -> tuple[KnownFault, ...]:
    """The known faults of a server version. `unified_memory=None`: not known, so such faults are included.

    A version that cannot be read and development builds (`0.0.0`) have none that could be named.
    """
    version = parse_version(text)
    if version is None or version == (0, 0, 0):
        return ()
    return tuple(
        fault
        for fault in KNOWN_FAULTS
        if fault.concerns(version) and (not fault.only_on or unified_memory is not False)
    )


def too_old(text: str) -> bool:
    """Whether the server lacks what embedctl needs; `0.0.0` is a development build and let through."""
    version = parse_version(text)
    return version is not None and (0, 0, 0) < version < MINIMUM_VERSION


def written(version: Version) -> str:
    return ".".join(map(str, version))
