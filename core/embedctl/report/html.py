"""The claims as one HTML file: no scripts, nothing fetched, readable offline and in print."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from embedctl.format import format_moment
from embedctl.records import Claim, ClaimsReport
from embedctl.report.svg import chart_svg
from embedctl.report.words import READING, SIMULATED, TITLE, basis, counts, interval_of

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#5b6672;--rule:#d5dae0;--band:#f5f7f9}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--paper:#14181d;
--soft:#9aa5b1;--rule:#38414b;--band:#1c2229}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;margin:0 0 .25rem}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
p{margin:.4rem 0}.soft{color:var(--soft)}
.warn{border-left:4px solid #d55e00;background:var(--band);padding:.6rem .9rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{padding:.5rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:600;border-bottom:2px solid var(--rule)}
td.n{white-space:nowrap;font-variant-numeric:tabular-nums}td.b{color:var(--soft);font-size:.86rem;min-width:15rem}
tr.topic td{background:var(--band);font-weight:600;padding:.3rem .6rem}
.v{display:inline-block;white-space:nowrap;border-radius:4px;padding:.05rem .45rem;
font-weight:600;border:1px solid}
.v-holds{color:#00734f;border-color:#009e73}.v-does-not-hold{color:#b34700;border-color:#d55e00}
.v-undecided{color:#8a6100;border-color:#e69f00}.v-not-measured{color:var(--soft);border-color:var(--rule)}
@media(prefers-color-scheme:dark){.v-holds{color:#3ccb9f}.v-does-not-hold{color:#ff9a5c}
.v-undecided{color:#ffc24d}}
code{background:var(--band);padding:.1rem .3rem;border-radius:3px;font-size:.9em;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:1.5rem}
figure{margin:0}figcaption{font-weight:600;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block}
svg .g{stroke:var(--rule)}svg .a{stroke:var(--soft)}
svg text{fill:var(--ink);font-size:12px;font-family:inherit}svg .t{fill:var(--soft)}
li{margin:.2rem 0}
@media print{body{max-width:none;padding:0}.charts{display:block}figure{break-inside:avoid}}
"""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def claims_html(report: ClaimsReport) -> str:
    """The whole page; every text in it is escaped."""
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(TITLE)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(report: ClaimsReport) -> Iterator[str]:
    yield f"<h1>{escape(TITLE)}</h1>"
    machine = report.machine or "nothing was measured yet"
    yield f'<p class="soft">{escape(f"{format_moment(report.at)}; {machine}")}</p>'
    if report.simulated:
        yield f'<p class="warn">{escape(SIMULATED)}</p>'
    for note in report.notes:
        yield f'<p class="warn">{escape(note)}</p>'
    yield f"<p><strong>{escape(counts(report))}.</strong> {escape(READING)}</p>"
    yield from _table(report)
    drawn = [(chart, picture) for chart in report.charts if (picture := chart_svg(chart))]
    if drawn:
        yield '<h2>Charts</h2>\n<div class="charts">'
        for chart, picture in drawn:
            note = f'<p class="soft">{escape(chart.note)}</p>' if chart.note else ""
            yield f"<figure><figcaption>{escape(chart.title)}</figcaption>{picture}{note}</figure>"
        yield "</div>"
    yield from _next(report)
    if report.sources:
        yield "<h2>Sources</h2>\n<ul>"
        for name, what in report.sources.items():
            yield f'<li id="{_anchor(name)}"><strong>{escape(name)}</strong>: {escape(what)}</li>'
        yield "</ul>"


def _table(report: ClaimsReport) -> Iterator[str]:
    heads = ("claim", "claimed", "measured", "95 % interval", "verdict", "rests on")
    yield '<div class="scroll"><table>\n<thead><tr>' + "".join(f"<th>{head}</th>" for head in heads)
    yield "</tr></thead>\n<tbody>"
    topic = ""
    for one in report.claims:
        if one.topic != topic:
            topic = one.topic
            yield f'<tr class="topic"><td colspan="{len(heads)}">{escape(topic)}</td></tr>'
        yield _row(one)
    yield "</tbody></table></div>"


def _row(one: Claim) -> str:
    verdict = f'<span class="v v-{one.verdict.replace(" ", "-")}">{escape(one.verdict)}</span>'
    links = ", ".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in one.evidence)
    why = f"{escape(one.why)} ({links})" if links else escape(basis(one))
    if one.ask:
        why += f"<br>run <code>{escape(one.ask)}</code>"
    return (
        f'<tr id="{escape(one.id)}"><td>{escape(one.claim)}</td><td class="n">{escape(one.claimed)}</td>'
        f'<td>{escape(one.measured or "n/a")}</td><td class="n">{escape(interval_of(one))}</td>'
        f'<td>{verdict}</td><td class="b">{why}</td></tr>'
    )


def _next(report: ClaimsReport) -> Iterator[str]:
    asked = dict.fromkeys(one.ask for one in report.claims if one.ask)
    if asked:
        yield "<h2>To measure next</h2>\n<ul>"
        for ask in asked:
            yield f"<li><code>{escape(ask)}</code></li>"
        yield "</ul>"


def _anchor(name: str) -> str:
    return escape(name.replace(" ", "-"))
