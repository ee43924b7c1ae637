"""`inspect`: what the model and the backends make of a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, say
from embedctl.errors import UsageError
from embedctl.format import ABSENT, format_value
from embedctl.records import BackendState, EmbedResult, Nearest, Tokenisation, Tokenised
from embedctl.text_files import texts_of

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade

_TEXT, _PASSAGE = 40, 90
"""Characters shown of a text, and of a passage."""
_COMPARED: Final = range(2, 17)
"""Numbers of texts whose cosines fit into a terminal; the JSON document has them always."""


@app.command()
def inspect(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: one per line of --file.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="One text per line, or .jsonl; - for standard input.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", help="Ask this one, loaded for it if need be; may be repeated. "
                     "Default: those that are loaded."),
    ] = None,
    passages: Annotated[
        Path | None,
        typer.Option("--passages", help="Search these: one per line, or .jsonl. Default: built-in ones."),
    ] = None,
    nearest: Annotated[int, typer.Option(min=0, help="Passages per text; 0: none are searched.")] = 3,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show the model's pieces of texts and what is cut, the backends' vectors compared, and nearest passages.

    The pieces need no loaded backend, only the model's files. Exit code 1: a text got no vector.
    """
    chosen = _chosen(texts, file)
    searched = texts_of(passages) if passages is not None else None
    with engine() as opened:
        opened.refresh()
        answers = [_ask(opened, name, chosen) for name in dict.fromkeys(backend or _loaded(opened))]
        tokens = opened.tokens(chosen)  # by now a loaded backend says how much it reads
        search = bool(answers) and nearest > 0
        found = opened.nearest(answers[0], passages=searched, count=nearest) if search else None
    if as_json:
        emit_json("inspection", _document(chosen, tokens, answers, found))
    else:
        _show(chosen, tokens, answers, found)
    if not answers:
        say("no backend is loaded: --backend native loads one for this look")
    if any(answer.failures for answer in answers):
        raise typer.Exit(EXIT_NO)


def _chosen(texts: list[str] | None, file: Path | None) -> list[str]:
    if bool(texts) == (file is not None):
        raise UsageError(
            "Texts and a file were both given" if texts else "There is nothing to look at",
            remedy="give texts, or --file with one per line",
        )
    return texts or texts_of(file or Path("-"))


def _loaded(opened: EngineFacade) -> list[str]:
    return [status.name for status in opened.status().backends if status.state is BackendState.READY]


def _ask(opened: EngineFacade, name: str, texts: Sequence[str]) -> EmbedResult:
    if name not in _loaded(opened):
        follow(opened.load(name))
    return opened.embed(texts, backend=name)


def _document(
    texts: Sequence[str], tokens: Tokenisation, answers: Sequence[EmbedResult], found: Nearest | None
) -> dict[str, Any]:
    """All but the vectors themselves, which `embed` writes."""
    from embedctl.similarity import cosine_matrix, norms

    return {
        "texts": texts,
        "tokens": tokens,
        "backends": [
            {
                "backend": answer.backend,
                "fingerprint": answer.fingerprint,
                "seconds": answer.seconds,
                "tokens": answer.tokens,
                "truncated": answer.truncated,
                "failures": answer.failures,
                "dimension": answer.vectors.shape[1],
                "norms": norms(answer.vectors).tolist(),
                "cosines": cosine_matrix(answer.vectors, answer.vectors).tolist(),
            }
            for answer in answers
        ],
        "between": _between(answers),
        "nearest": found,
    }


def _between(answers: Sequence[EmbedResult]) -> list[float] | None:
    """Cosine per text between two backends' vectors."""
    from embedctl.similarity import cosines

    return cosines(answers[0].vectors, answers[1].vectors).tolist() if len(answers) == 2 else None


def _show(
    texts: Sequence[str], tokens: Tokenisation, answers: Sequence[EmbedResult], found: Nearest | None
) -> None:
    if tokens.absence is not None:
        say(f"{tokens.absence.what}: {tokens.absence.why}; {tokens.absence.remedy}")
    else:
        limit = ABSENT if tokens.limit is None else f"{tokens.limit:,} tokens"
        emit(f"{tokens.model} reads {limit} ({tokens.limit_source})")
        for number, one in enumerate(tokens.texts, 1):
            emit(f"{number:>3}  {_counted(one)}")
            emit(f"     {_pieces(one)}")
    if answers:
        _show_vectors(texts, answers)
        if len(texts) in _COMPARED:
            _show_cosines(answers[0])
    if found is not None:
        emit("")
        emit(f"nearest by {found.backend}, {found.corpus}")
        for number, passages in enumerate(found.found, 1):
            for passage in passages:
                text = _short(passage.text, _PASSAGE)
                emit(f"{number:>3}  {passage.cosine:6.3f}  {passage.group:<2}  {text}".rstrip())


def _counted(one: Tokenised) -> str:
    if one.cut is None:
        return f"{len(one.pieces):,} tokens"
    lost = f"characters {one.cut[0] + 1:,} to {one.cut[1]:,} are lost"
    return f"{one.read:,} of {len(one.pieces):,} tokens are read, {lost}"


def _pieces(one: Tokenised) -> str:
    words = [piece.text for piece in one.pieces]
    if one.lost is not None:
        words.insert(one.lost[0], f"[cut: {one.lost[1] - one.lost[0]:,} not read]")
    return "│".join(words)


def _show_vectors(texts: Sequence[str], answers: Sequence[EmbedResult]) -> None:
    from embedctl.similarity import norms

    emit("")
    for answer in answers:
        counted = ABSENT if answer.tokens is None else f"{answer.tokens:,}"
        took = format_value(answer.seconds * 1e3, "ms")
        emit(f"{answer.backend}: {took}, {counted} tokens, {answer.vectors.shape[1]:,} numbers per vector")
        for failure in answer.failures:
            say(f"text {failure.index + 1} failed in {answer.backend}: {failure.what}")
        for note in answer.notes:
            say(f"{answer.backend}: {note}")
    names = [f"norm {answer.backend}" for answer in answers]
    columns = ["", "text", *names, *(["cosine"] if len(answers) == 2 else [])]
    lengths = [norms(answer.vectors) for answer in answers]
    between = _between(answers)
    emit_table(
        columns,
        [
            [
                f"{place + 1:>3}",
                _short(text, _TEXT),
                *(_number(float(length[place]), ".4f") for length in lengths),
                *([_number(between[place], ".5f")] if between is not None else []),
            ]
            for place, text in enumerate(texts)
        ],
        right=frozenset({*names, "cosine"}),
    )


def _show_cosines(answer: EmbedResult) -> None:
    from embedctl.similarity import cosine_matrix

    numbers = [str(number) for number in range(1, len(answer.vectors) + 1)]
    rows = cosine_matrix(answer.vectors, answer.vectors).tolist()
    emit("")
    emit(f"cosines by {answer.backend}")
    emit_table(
        ["", *numbers],
        [[number.rjust(3), *(_number(value, ".2f") for value in row)]
         for number, row in zip(numbers, rows, strict=True)],
        right=frozenset(numbers),
    )  # fmt: skip


def _number(value: float, form: str) -> str:
    return ABSENT if value != value else f"{value:{form}}"  # NaN is what it is not


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
