"""`quality`: how well queries find their documents, and what a change costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, filled
from embedctl.cli.studies import EXIT_UNDECIDED, last_study
from embedctl.format import ABSENT, format_count, format_duration, format_moment
from embedctl.study_data import quality_report

if TYPE_CHECKING:
    from embedctl.records import Interval, QualityReport, Study

_LOST_SHOWN = 3


@app.command()
def quality(
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="What is searched; may be repeated. xquad: all built-in sets, in six languages and across "
            "them; xquad-de: one of them; xquad-de-en: questions in German, paragraphs in English; a folder "
            "in BEIR's layout; hub:owner/name[@revision].",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", "-b", help="Ask only this one; may be repeated, the first is the baseline."
        ),
    ] = None,
    vary: Annotated[
        str,
        typer.Option(
            help="In place of two backends: the native one under several settings, the first the baseline: "
            "dtype=float32,float16,bfloat16,float8 or max_tokens=512,8192."
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Which of the files under qrels: test, dev, …")] = "test",
    queries: Annotated[
        int | None, typer.Option(min=2, help="At most so many of each set; quicker, and less certain.")
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(min=2, help="At most so many of a folder or a set of the Hub: an easier set."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, help="A mean difference of up to this does not matter.")
    ] = 0.01,
    last: Annotated[bool, typer.Option("--last", help="Show the last one; measure nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure NDCG@10, MRR@10 and Recall@100, and compare backends, precisions or length limits.

    Exit code 0: no difference that matters, or better. 1: worse. 2: undecided, or it could not be done.

    The design document's table, on MS MARCO's 8.8 million passages (hours; with --documents 100000 an
    easier part of it): embedctl quality --set hub:mteb/msmarco@c5a29a104738b98a9e76336939199e264163d4a0
    --split dev
    """
    with engine(sampling=not last, recording=not last) as opened:
        if last:
            study = last_study(
                opened, "quality", missing="Quality was not measured yet", remedy="`embedctl quality` does it"
            )
        else:
            opened.refresh()
            study = follow(
                opened.quality(
                    backends=backend or None, vary=vary, sets=sets or ["xquad"], split=split,
                    queries=queries, documents=documents, threshold=threshold,
                )
            )  # fmt: skip
    report = quality_report(study)
    if as_json:
        emit_json("study", study)
    else:
        show_quality(study, report)
    if report.verdict in ("worse", "undecided"):
        raise typer.Exit(EXIT_NO if report.verdict == "worse" else EXIT_UNDECIDED)


def show_quality(study: Study, report: QualityReport) -> None:
    """Write the answer first, then what it rests on."""
    verdict, _, rest = study.headline.partition(": ")
    emit(f"{verdict.upper()}: {rest}")
    for reason in report.reasons:
        emit(f"  - {reason}")
    emit("")
    emit_table(
        ("set", "variant", "queries", "documents", "NDCG@10", "95 %", "MRR@10", "Recall@100"),
        [
            (
                one.set,
                one.variant,
                format_count(one.queries),
                format_count(one.documents),
                f"{one.ndcg.estimate:.4f}",
                _ends(one.ndcg, ".3f"),
                f"{one.mrr.estimate:.4f}",
                f"{one.recall.estimate:.4f}",
            )
            for one in report.scores
        ],
        right=frozenset({"queries", "documents", "NDCG@10", "MRR@10", "Recall@100"}),
    )
    if report.differences:
        scope = report.differences[-1].set  # all sets, or the only one; of the others NDCG alone
        emit("")
        emit_table(
            ("against " + report.variants[0].name, "set", "measure", "change", "95 %", "verdict"),
            [
                (
                    one.variant,
                    one.set,
                    one.measure,
                    f"{one.change.estimate:+.4f}",
                    _ends(one.change, "+.4f"),
                    one.verdict,
                )
                for one in report.differences
                if one.measure == "ndcg@10" or one.set == scope
            ],
            right=frozenset({"change"}),
        )
    if report.lost:
        emit("")
        emit("queries that lost most")
        for lost in report.lost[:_LOST_SHOWN]:
            emit(f"  {lost.baseline_ndcg:.2f} → {lost.variant_ndcg:.2f}  {lost.set}  {_short(lost.query)}")
    emit("")
    for variant in report.variants:
        dtype = variant.fingerprint.dtype or ABSENT
        cut = f", {variant.cut:,} cut at the length limit" if variant.cut else ""
        emit(f"{variant.name}: {variant.fingerprint.model}, {dtype}, {variant.texts:,} texts{cut}")
        for note in variant.notes:
            emit(f"  {note}")
    for one_set in report.sets:
        if one_set.note:
            emit(f"{one_set.name}: {one_set.note}")
    took = f"study {study.id}, {format_moment(study.at)}, took {format_duration(study.seconds)}"
    emit(filled(f"{took}; a mean difference of up to {report.threshold:g} does not matter"))


def _ends(interval: Interval, form: str) -> str:
    if interval.low is None or interval.high is None:
        return "n too small"
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59].rstrip() + "…"
