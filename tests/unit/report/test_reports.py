"""The reports as files: golden ones, and that nothing in them can break out of its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from embedctl.lab.claims import claims
from embedctl.records import ChartSeries, ClaimChart, ClaimsReport, Comparison, Interval, Run, StudySummary
from embedctl.report.adr import Subject, decision, decision_record
from embedctl.report.html import claims_html
from embedctl.report.markdown import cell, claims_markdown
from embedctl.report.svg import chart_svg
from embedctl.settings import Settings
from embedctl.study_data import check_report
from tests.support import canned
from tests.support.canned import coexist_study, quality_study
from tests.support.fake_engine import FakeEngine

Golden = Callable[[str, str], None]
EVIL = '<script>alert("1")</script> | `x` & \n# heading'


def run(ratio: float = 3.2) -> Run:
    near = Interval(ratio, ratio * 0.9, ratio * 1.1)
    made = canned.run(7)
    shapes = (("one text", "latency"), ("batch of 32", "throughput"))
    comparisons = tuple(
        Comparison(shape, metric, "ollama", "native", near, "faster")  # type: ignore[arg-type]
        for shape, metric in shapes
    )
    return replace(made, comparisons=comparisons)


def report(**changes: object) -> ClaimsReport:
    studies = [canned.check_study(), quality_study(), coexist_study()]
    return replace(claims([run()], studies, at=canned.NOW), **changes)  # type: ignore[arg-type]


def subject(verdict: str = "safe with limits", *, active: str = "ollama", ratio: float = 3.2) -> Subject:
    engine = FakeEngine(active=active)
    check = replace(check_report(canned.check_study()), verdict=verdict)  # type: ignore[arg-type]
    studies = [canned.check_study(), quality_study(), coexist_study()]
    summaries: tuple[StudySummary, ...] = tuple(map(canned.study_summary, studies[1:]))
    found = claims([run(ratio)], studies, at=canned.NOW)
    return Subject(found, engine.status(), Settings(), check, "study 4", summaries)


def test_markdown(golden: Golden) -> None:
    golden("claims.md", claims_markdown(report()))


def test_html(golden: Golden) -> None:
    golden("claims.html", claims_html(report()))


def test_the_decision_record(golden: Golden) -> None:
    golden("adr.md", decision_record(subject()))


class Tags(HTMLParser):
    """Every element is closed, and nothing is fetched or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_fetches_nothing_and_links_only_within() -> None:
    page = claims_html(report())
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "script" not in tags.seen
    assert {"svg", "table"} <= tags.seen
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert tags.links
    assert all(link.startswith("#") and link[1:] in anchors for link in tags.links)


def test_what_the_evidence_says_is_text_and_no_markup() -> None:
    whole = report()
    chart = ClaimChart(EVIL, "dots", EVIL, EVIL, (ChartSeries(EVIL, (0.0,), (1.0,)),), (EVIL,), EVIL)
    bad = replace(
        whole,
        claims=(replace(whole.claims[0], claim=EVIL, claimed=EVIL, measured=EVIL, why=EVIL, ask=EVIL),),
        machine=EVIL, notes=(EVIL,), sources={"run 7": EVIL}, charts=(chart,),
    )  # fmt: skip
    tags = Tags()
    tags.feed(claims_html(bad))
    assert not tags.open
    assert "script" not in tags.seen
    row = next(line for line in claims_markdown(bad).splitlines() if line.startswith("| &lt;script>"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert cell("a\\|b") == "a\\\\\\|b"


def test_the_demo_says_that_it_is_one() -> None:
    made = report(simulated=True)
    for text in (claims_html(made), claims_markdown(made)):
        assert "whose GPU, Hub and Ollama server are simulated" in text


@pytest.mark.parametrize(
    "series",
    [
        ChartSeries("a", (0.0, 1.0), (5.0, 5.0)),
        ChartSeries("a", (0.0,), (-0.02,), (-0.03,), (0.01,)),
        ChartSeries("a", (1.0, 2.0, 2.0), (0.999, 0.9995, 1.0), (None, 0.9, None), (None, 1.1, None)),
        ChartSeries("a", (1e-3, 1e6), (0.0, 1e9)),
    ],
)
@pytest.mark.parametrize("kind", ["dots", "lines", "steps"])
def test_a_chart_is_well_formed_and_inside_its_frame(kind: str, series: ChartSeries) -> None:
    picture = chart_svg(ClaimChart("t", kind, "x", "y", (series, series)))  # type: ignore[arg-type]
    root = ElementTree.fromstring(picture)  # our own
    assert "nan" not in picture
    for element in root.iter():
        for name in ("x", "cx", "x1", "x2"):
            if name in element.attrib:
                assert -20 <= float(element.attrib[name]) <= 740
    assert chart_svg(ClaimChart("t", "dots", "", "", ())) == ""


@pytest.mark.parametrize(
    ("made", "choice", "word"),
    [
        (subject("safe"), "native", "decided, not carried out yet"),
        (subject("safe", active="native"), "native", "in force"),
        (subject("safe with limits"), "native", "decided, not carried out yet"),
        (subject("not safe"), "none", "open"),
        (subject("undecided"), "none", "open"),
        (replace(subject(), check=None, check_name=""), "none", "open"),
        (subject("safe", ratio=0.5), "ollama", "in force"),
        (subject("safe", ratio=1.0), "none", "open"),
    ],
)
def test_the_decision_follows_from_the_verdicts(made: Subject, choice: str, word: str) -> None:
    assert decision(made)[0] == choice
    record = decision_record(made)
    assert f"Status: {word}." in record
    assert ("**No decision yet:**" in record) == (choice == "none")
    back = {"native": "ollama", "ollama": "native"}
    expected = back[choice] if choice != "none" else made.status.active
    assert f"`embedctl switch {expected}`; for applications" in record


def test_a_worse_retrieval_stops_the_switch() -> None:
    made = subject("safe")
    worse = tuple(
        replace(one, verdict="does not hold") if one.id == "quality-alike" else one
        for one in made.claims.claims
    )
    made = replace(made, claims=replace(made.claims, claims=worse))
    assert decision(made)[1].startswith("the two do not retrieve equally well")
