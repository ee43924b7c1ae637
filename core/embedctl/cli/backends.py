"""`switch`, `embed`: the backends at work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, say
from embedctl.errors import UsageError
from embedctl.format import format_bytes, format_duration
from embedctl.records import BackendState, EmbedResult, SwitchPlan, SwitchReport
from embedctl.text_files import lines_of

BackendArgument = Annotated[str, typer.Argument(help="native or ollama")]


@app.command()
def switch(
    target: BackendArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    keep_both: Annotated[
        bool | None, typer.Option("--keep-both/--unload", help="Leave the old backend loaded, or not.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backend the active one: check it, flip, then unload the old one."""
    with engine(sampling=True, recording=not dry_run) as opened:
        opened.refresh()
        if dry_run:
            plan = opened.plan_switch(target, keep_both=keep_both)
            if as_json:
                emit_json("switch-plan", plan)
            else:
                _show_plan(plan)
            if plan.obstacle:
                raise typer.Exit(EXIT_NO)
            return
        if opened.status().active == target:
            say(f"{target} is the active backend already")
            return
        report: SwitchReport = follow(opened.switch(target, keep_both=keep_both))
    if os.environ.get("EMBEDDING_BACKEND", target).strip().lower() not in ("", target):
        say(f"EMBEDDING_BACKEND={os.environ['EMBEDDING_BACKEND']} is set and goes before this choice")
    if as_json:
        emit_json("switch", report)
    else:
        agreement = "not compared" if report.agreement is None else f"least cosine {report.agreement:.4f}"
        emit(f"{report.source} → {report.target} in {format_duration(report.seconds)}, {agreement}")


@app.command()
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: one per line of --file.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="One text per line; - for standard input.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="native or ollama; default: the active one.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts per forward pass.")] = None,
    normalize: Annotated[bool, typer.Option(help="L2-normalise the vectors.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Embed texts: one JSON array per line and text, in order; null for a text that failed (exit code 1)."""
    chosen = _texts(texts, file)
    with engine() as opened:
        now = opened.status()
        name = backend or now.active
        if not any(found.name == name and found.state is BackendState.READY for found in now.backends):
            follow(opened.load(name))
        result = opened.embed(chosen, backend=backend, batch_size=batch_size, normalize=normalize)
    failed = {failure.index for failure in result.failures}
    vectors = [None if i in failed else row for i, row in enumerate(result.vectors.tolist())]
    if as_json:
        emit_json(
            "embed",
            {
                "backend": result.backend,
                "vectors": vectors,
                "tokens": result.tokens,
                "truncated": result.truncated,
                "failures": result.failures,
                "seconds": result.seconds,
            },
        )
    else:
        for vector in vectors:
            emit(json.dumps(vector))
    _talk(result)
    if failed:
        raise typer.Exit(EXIT_NO)


def _texts(texts: list[str] | None, file: Path | None) -> list[str]:
    if texts and file is not None:
        raise UsageError("Texts and a file were both given", remedy="give one of the two")
    if file is None:
        if not texts:
            raise UsageError("There is nothing to embed", remedy="give texts, or --file with one per line")
        return texts
    return lines_of(file)


def _talk(result: EmbedResult) -> None:
    if result.truncated:
        say(f"cut at the length limit: texts {', '.join(map(str, result.truncated))}")
    for failure in result.failures:
        say(f"text {failure.index} failed: {failure.what}")
    for note in result.notes:
        say(note)


def _show_plan(plan: SwitchPlan) -> None:
    loaded = " (loaded)" if plan.target_loaded else ""
    emit(f"{plan.source} → {plan.target}{loaded}")
    emit(f"  GPU memory in use  {format_bytes(plan.gpu_memory_used)}")
    emit(f"  {plan.source} holds       {format_bytes(plan.source_bytes)}")
    emit(f"  {plan.target} will hold   {format_bytes(plan.expected_bytes)}  [{plan.expected_source}]")
    emit(f"  available          {format_bytes(plan.available_bytes)}, floor {format_bytes(plan.floor_bytes)}")
    emit(f"  steps              {', '.join(plan.steps)}")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    if plan.obstacle:
        say(f"not possible: {plan.obstacle.what}")
        for line in (plan.obstacle.why, plan.obstacle.remedy):
            if line:
                say(f"  {line}")
