"""What the Playground says of vectors and nearest passages, and what to do where there are none. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from textual.content import Content

from embedctl.errors import EmbedctlError
from embedctl.format import ABSENT, format_count, format_value
from embedctl.records import BackendState, BackendStatus, EmbedResult, Nearest
from embedctl.similarity import cosines, norms
from embedctl_console.screens.playground_findings import EXAMPLES, MOST_TEXTS, Findings
from embedctl_console.widgets.text import failure_text, hanging, joined

if TYPE_CHECKING:
    from embedctl.records import BackendName
    from embedctl.similarity import Cosines

Key = Callable[[str], str]
"""The key of an action, as it is printed."""

_KEY: Final = "bold $footer-key-foreground"
LOADABLE: Final = (BackendState.UNLOADED, BackendState.FAILED, BackendState.UNKNOWN)
"""States in which a load may help."""
_COLUMN, _COSINE = 12, 10
"""Cells of the table's columns: one per backend, and the cosine of the two."""
_PASSAGE_LINES: Final = 2


def empty_text(backends: Sequence[BackendStatus], key: Key) -> Content:
    """What to do on a Playground where nothing was embedded yet."""
    steps = Content.assemble(
        "Type or paste texts above, one a line; ",
        (key("playground.run"), _KEY),
        f" embeds them ({len(EXAMPLES)} examples where there are none). You see the model's pieces, what is "
        "cut, both backends' vectors side by side, all cosines, and the nearest passages of a corpus. What "
        "you type is not stored.",
    )
    absent = [absence_text(status, None, key) for status in backends]
    return Content("\n").join([steps, *(line for line in absent if line.plain)])


def about_text(found: Findings, *, stale: bool, stopped: bool, key: Key) -> Content:
    """What the findings are of."""
    count = _texts(len(found.texts))
    if found.left_out:
        count = f"the first {MOST_TEXTS} of {MOST_TEXTS + found.left_out:,} texts"
    parts = [Content.assemble((count, "bold"))]
    if stale:
        parts.append(Content.assemble(("changed since: ", "$text-warning"), (key("playground.run"), _KEY)))
    if stopped:
        again = (key("playground.run"), _KEY)
        parts.append(Content.assemble(("stopped: ", "$text-warning"), again, " goes on"))
    if not found.asked:
        parts.append(
            Content.assemble(("no backend was loaded: ", "$text-warning"), (key("playground.load"), _KEY))
        )
    if found.tokens is not None and found.tokens.absence is None:
        limit = ABSENT if found.tokens.limit is None else f"{found.tokens.limit:,} tokens"
        parts.append(Content(f"{found.tokens.model} reads {limit} ({found.tokens.limit_source})"))
    return joined(parts)


# Vectors


def vectors_text(found: Findings | None, backends: Sequence[BackendStatus], width: int, key: Key) -> Content:
    """The backends side by side: latency, tokens, each text's norm, and the cosine between the two."""
    rows: list[Content] = []
    if found is not None and found.answered:
        rows += _table(found, [status.name for status in backends], width)
    if found is not None:
        rows += _remarks(found, width)
    absent = [absence_text(status, found, key) for status in backends]
    return Content("\n").join([*rows, *(line for line in absent if line.plain)])


def _table(found: Findings, names: Sequence[str], width: int) -> Iterator[Content]:
    answers = [found.answer(name) for name in names]
    two = len(names) > 1
    room = max(8, width - 4 - _COLUMN * len(names) - _COSINE * two)

    def fact(what: str, say: Callable[[EmbedResult], str]) -> Content:
        cells = [(say(answer), "") if answer else (ABSENT, "$text-muted") for answer in answers]
        return _row("", what, room, cells)

    yield _row("", "", room, [(name, f"bold $series-{name}") for name in names])
    asked = f"time for {_texts(len(found.texts))}"
    yield fact(asked, lambda answer: format_value(answer.seconds * 1e3, "ms"))
    yield fact("tokens", lambda answer: format_count(answer.tokens))
    yield fact("dimension", lambda answer: format_count(answer.vectors.shape[1]))
    yield _row("", "", room, [("norm", "$text-muted")] * len(names), "cosine" if two else "")
    lengths = [norms(answer.vectors) if answer else None for answer in answers]
    between = _between(answers)
    for place, text in enumerate(found.texts):
        cells = [
            _norm(answer, float(length[place]), place)
            if answer is not None and length is not None else (ABSENT, "$text-muted")
            for answer, length in zip(answers, lengths, strict=True)
        ]  # fmt: skip
        known = between is not None and np.isfinite(between[place])
        cosine = f"{between[place]:.5f}" if between is not None and known else ABSENT
        yield _row(str(place + 1), text, room, cells, cosine if two else "")


def _row(number: str, text: str, room: int, cells: Iterable[tuple[str, str]], last: str = "") -> Content:
    return Content.assemble(
        (f"{number:>3} ", "bold"),
        Content(text.replace("\t", " "))
        .truncate(room, ellipsis=True, pad=True)
        .stylize("" if number else "$text-muted"),
        *((f"{words:>{_COLUMN}}", style) for words, style in cells),
        (f"{last:>{_COSINE}}" if last else "", "bold" if number else "$text-muted"),
    )


def _between(answers: Sequence[EmbedResult | None]) -> Cosines | None:
    """Cosine per text between the two backends' vectors; None unless there are two answers."""
    if len(answers) != 2 or answers[0] is None or answers[1] is None:
        return None
    return cosines(answers[0].vectors, answers[1].vectors)


def _norm(answer: EmbedResult, norm: float, place: int) -> tuple[str, str]:
    if not np.isfinite(norm):
        return "no vector", "$text-error"
    return (f"{norm:.4f} cut", "$text-warning") if place in answer.truncated else (f"{norm:.4f}", "")


def _remarks(found: Findings, width: int) -> Iterator[Content]:
    """What went wrong, and what the backends had to do to get through."""
    for name, answer in found.answers.items():
        if isinstance(answer, EmbedctlError):
            yield failure_text(f"{name}: {answer.what}", answer.why, answer.remedy)
            continue
        read = found.tokens.read if found.tokens is not None else None
        if read is not None and answer.tokens is not None and answer.tokens != read:
            counted = f"{name} counts {answer.tokens:,} tokens where the pieces that are read are {read:,}"
            yield hanging(Content.assemble(("! ", "$text-warning")), counted, width)
        for failure in answer.failures:
            head = Content.assemble(("✗ ", "$text-error"), f"{name}, text {failure.index + 1}: ")
            yield hanging(head, failure.what, width)
        for note in answer.notes:
            yield hanging(Content.assemble((f"· {name}: ", "$text-muted")), note, width)
    lengths = {
        answer.vectors.shape[1] for answer in found.answers.values() if isinstance(answer, EmbedResult)
    }
    if len(lengths) > 1:
        yield Content.assemble(("! ", "$text-warning"), "no cosines: the backends' vectors differ in length")


def absence_text(status: BackendStatus, found: Findings | None, key: Key) -> Content:
    """What to do about a backend that gave no vectors; empty for one that did."""
    name = Content.assemble((status.name, f"bold $series-{status.name}"))
    if status.state is BackendState.READY:
        if found is None or status.name in found.asked:
            return Content("")
        return Content.assemble(name, " is loaded by now: ", (key("playground.run"), _KEY), " asks it too")
    head = Content.assemble(("○ ", "$text-warning"), name, f": {status.state}; ")
    if status.state in LOADABLE:
        return Content.assemble(head, (key("playground.load"), _KEY), " loads it")
    if status.state is BackendState.MODEL_MISSING:
        return Content.assemble(head, (key("everywhere.show-models"), _KEY), " opens Models, to fetch it")
    if status.state is BackendState.UNAVAILABLE:
        return failure_text(f"{status.name} is {status.state}", status.detail, status.remedy)
    return Content.assemble(head, status.detail or "wait a moment")


def _texts(count: int) -> str:
    return f"{count:,} text{'s' if count != 1 else ''}"


# Cosines and nearest passages


def cosines_text(backend: BackendName | None, *, busy: bool) -> Content:
    """What stands above the matrix of a backend's cosines; None: there is no matrix."""
    if backend is None:
        return _no_vectors(busy=busy)
    return Content.assemble(
        (backend, f"bold $series-{backend}"), (" · • marks the nearest other", "$text-muted")
    )


def passages_text(
    texts: Sequence[str],
    backend: BackendName | None,
    nearest: Nearest | EmbedctlError | None,
    width: int,
    *,
    busy: bool,
    key: Key,
) -> Content:
    """What a backend has found, or why there is nothing."""
    if backend is None:
        return _no_vectors(busy=busy)
    if isinstance(nearest, EmbedctlError):
        return failure_text(nearest.what, nearest.why, nearest.remedy)
    if nearest is None:
        again = (key("playground.run"), _KEY)
        return Content("") if busy else Content.assemble("Not searched: ", again, " does it.")
    return nearest_text(texts, nearest, width)


def _no_vectors(*, busy: bool) -> Content:
    return Content("") if busy else Content("No backend gave vectors; Vectors says what to do.")


def nearest_text(texts: Sequence[str], nearest: Nearest, width: int, *, whole: bool = False) -> Content:
    """Per text, the passages with their cosines; each on two lines at most, unless they are wanted whole."""
    backend = (nearest.backend, f"bold $series-{nearest.backend}")
    rows = [Content.assemble(backend, (f" · {nearest.corpus}", "$text-muted"))]
    if nearest.waiting:
        among = f"among {nearest.passages - nearest.waiting:,} of {nearest.passages:,} passages so far"
        rows.append(Content.assemble(("! ", "$text-warning"), among))
    if nearest.without_vector:
        without = f"{nearest.without_vector} passages got no vector and are not found"
        rows.append(Content.assemble(("! ", "$text-warning"), without))
    for number, (text, passages) in enumerate(zip(texts, nearest.found, strict=True), 1):
        rows.append(Content.assemble((f"{number:>3} {text}", "bold")).truncate(width, ellipsis=True))
        if not passages:
            rows.append(Content.assemble(("    this text got no vector", "$text-warning")))
        most = None if whole else _PASSAGE_LINES
        rows += [
            _passage(f"    {one.cosine:6.3f} {one.group:<2} ", one.text, width, most) for one in passages
        ]
    return Content("\n").join(rows)


def _passage(lead: str, text: str, width: int, most: int | None) -> Content:
    """`text` beside `lead`, broken at words; lines beyond the first `most` are left out."""
    room = max(16, width - len(lead))
    lines = Content(" ".join(text.split())).wrap(room)
    kept = lines[:most]
    if len(lines) > len(kept):
        kept[-1] = Content.assemble(kept[-1].truncate(room - 1), "…")
    indent = " " * len(lead)
    return Content.assemble((lead, "bold $primary"), Content(f"\n{indent}").join(kept))
