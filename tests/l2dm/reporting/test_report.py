"""The page from made-up doors: complete, self-contained, escaped, bounded, repeatable."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from l2dm import escape
from l2dm.doors import Concept, Finding, Verdict
from l2dm.errors import BadDoor
from l2dm.reporting.report import StepCost, render, summary_markdown
from l2dm.reporting.timeline import PastCheck
from tests.worlds import history
from tests.worlds.hostile_text import texts

VOID = {"meta", "img"}
SVG = {"svg", "line", "circle", "polyline", "text"}


class Outline(HTMLParser):
    """Tags in order, attributes by tag, and text; fails on tags that do not close."""

    def __init__(self, page):
        super().__init__()
        self.open, self.attributes, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def pictures(self):
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return history.line(tmp_path_factory.mktemp("line"), history.concepts(3), fade=0.1)


@pytest.fixture(scope="module")
def page(three):
    costs = [StepCost("t0001", "train", 61.25, 3 * 2**20), StepCost("t0002", "train", 30.0)]
    return Outline(render("pets", three, costs))


def test_every_part_is_there(page):
    for heading in (
        "pets", "champion: version 3", "Tasks and verdicts", "Scores after each task",
        "Identity similarity", "Identity accuracy", "Image alignment", "Text alignment",
        "Forgetting per concept", "What the model draws", "Class prompts before and after",
        "Loss", "Cost", "How to read the numbers",
    ):  # fmt: skip
        assert heading in page.text


def test_numbers_by_hand(page):
    # c1 is learned at 0.80 and loses 0.1 a task: 0.80, 0.70, 0.60; c2: 0.80, 0.70.
    # drops 0.2 and 0.1, mean 0.15; relative: 0.2 / 0.6 and 0.1 / 0.6, mean 0.25
    assert "Forgetting 0.150" in page.text
    assert "Relative forgetting 0.25" in page.text
    assert "Worst drop 0.200" in page.text
    assert "Backward transfer −0.150" in page.text
    # drift: fade * row / 2 = 0.15 for each noun in the last row
    assert "Class drift 0.150" in page.text
    # c1: base, learned, peak, now, ceiling, drop
    assert "<c1> dog 0.200 0.800 0.800 (t0001) 0.600 0.900 0.200 [" in page.text


def test_verdicts_have_their_reasons(tmp_path):
    reasons = ("Identity accuracy of <c2> is 0.25, below 0.50.", "Nothing was forgotten.")
    entries = history.line(tmp_path, history.concepts(2), reasons=reasons, held=(2,))
    page = Outline(render("pets", entries))
    assert "✕ held" in page.text
    assert "✓ promoted" in page.text
    assert all(reason in page.text for reason in reasons)
    assert "champion: version 1" in page.text
    assert "numbers below: version 2, not promoted" in page.text


def test_costs_are_in_seconds_with_totals(three):
    costs = [
        StepCost("t0001", "intake", 1.5),
        StepCost("t0001", "train", 61.25, 3 * 2**20),
        StepCost("t0002", "train", 30.0, 5 * 2**20),
    ]
    text = Outline(render("pets", three, costs)).text
    assert "task intake train total" in text
    assert "t0002 – 30.0 30.0" in text  # intake was not measured: a dash, not 0
    assert "t0001 1.5 61.2 62.8" in text
    assert "Highest memory of any step: 5 MiB" in text
    assert "Cost" not in Outline(render("pets", three)).text.split("How to read")[0]


def test_the_page_needs_nothing_from_outside(three, page):
    html = render("pets", three)
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures())
    assert len(page.pictures()) > 10
    assert "http" not in html
    assert "<script" not in html
    assert "<link" not in html
    assert "@import" not in html
    assert re.findall(r"url\(", html) == []
    assert not any(name in ("href", "srcset", "onload") for _, name, _ in page.attributes)


def test_text_from_users_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    entries = history.line(tmp_path, (Concept("c1", evil),), reasons=(evil,))
    html = render(evil, entries, [StepCost(evil, evil, 1.0)])
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;" in html
    outline = Outline(html)
    assert evil in outline.text
    assert any(evil in value for tag, name, value in outline.attributes if name == "alt")


BREAKS_OUT = """" onload="alert(1)' x='"><img src=x onerror=alert(2)></svg></style>{{ 7 * 7 }}"""


def test_names_stay_data_in_attributes_and_in_svg(tmp_path):
    entries = history.line(tmp_path, (Concept("c1", BREAKS_OUT), Concept("c2", BREAKS_OUT)))
    past = [PastCheck(BREAKS_OUT, 1, BREAKS_OUT, BREAKS_OUT, {BREAKS_OUT: 0.5}, (BREAKS_OUT,))] * 2
    outline = Outline(render(BREAKS_OUT, entries, [StepCost(BREAKS_OUT, BREAKS_OUT, 1.0)], past))
    allowed = {"alt", "aria-label", "class", "style", "src", "lang", "charset", "name", "content"}
    assert {name for tag, name, _ in outline.attributes if tag not in SVG} <= allowed
    assert not any(name.startswith("on") for _, name, _ in outline.attributes)
    assert not any(value == "x" for _, name, value in outline.attributes if name == "src")
    assert any(BREAKS_OUT in value for _, name, value in outline.attributes if name == "alt")
    assert " ".join(BREAKS_OUT.split()) in outline.text  # nor is it a template


def test_the_same_doors_give_the_same_page(three):
    assert render("pets", three) == render("pets", list(reversed(three)))


def test_a_long_line_stays_on_a_bounded_page(tmp_path):
    known = history.concepts(40)
    entry = history.line_end(tmp_path, known, fade=0.002)
    html = render("pets", [entry])
    text = Outline(html).text
    assert (
        "Shown: 12 of 40 concepts (those that lost most, and the latest) and the latest 6 of"
        in text
    )
    assert len(html) < 400_000
    # c1 lost most, c40 is the latest, c20 is neither
    drawn = html.split("What the model draws")[1].split("Class prompts")[0]
    assert "&lt;c1&gt; dog" in drawn
    assert "&lt;c40&gt; dog" in drawn
    assert "&lt;c20&gt;" not in drawn


def test_one_task_has_nothing_to_forget(tmp_path):
    text = Outline(render("pets", history.line(tmp_path, history.concepts(1)))).text
    assert "Forgetting –" in text
    assert "Relative forgetting –" in text
    assert "Worst drop –" in text


def test_an_empty_line_says_so():
    assert "has not learned a concept yet" in Outline(render("pets", [])).text
    assert "has not learned a concept yet" in summary_markdown("pets", [])


def test_a_damaged_door_is_refused(tmp_path):
    entries = history.line(tmp_path, history.concepts(1))
    (entries[0].release.folder / "scores/values.json").write_text("[]")
    with pytest.raises(BadDoor, match=r"changed \['values.json'\]"):
        render("pets", entries)


def test_the_summary_is_short_and_has_verdict_and_numbers(three):
    summary = summary_markdown("pets", three)
    assert summary.startswith("## pets: version 3 promoted\n\nChampion: version 3\n\n- It is fine.")
    assert "| Forgetting | 0.150 |" in summary
    assert len(summary.splitlines()) < 20


def test_after_a_rollback_the_page_says_what_the_champion_knows_and_what_not_any_more(tmp_path):
    """Alias and page agree: a version whose gate was open is not the champion for that."""
    entries = history.line(tmp_path, history.concepts(3))
    now = [replace(one, aliases=()) for one in entries]
    now[0] = replace(now[0], aliases=("champion",))
    now[2] = replace(now[2], aliases=("previous",))
    text = Outline(render("pets", now)).text.replace(" ,", ",").replace(" .", ".")
    assert "The champion knows <c1> dog." in text
    assert "not known any more: <c2> cat (version 2), <c3> car (version 3)." in text
    assert text.count("↶ taken back") == 2 and text.count("✓ promoted") == 1
    assert summary_markdown("pets", now).startswith("## pets: version 3 taken back by a rollback")
    before = Outline(render("pets", entries)).text
    assert "taken back" not in before
    assert "The champion knows <c1> dog , <c2> cat , <c3> car ." in before


def test_what_closed_the_gate_is_marked_and_text_is_data(tmp_path):
    """Reasons of a version are marked one by one, and whatever they hold is shown."""
    hostile = [escape.lines(text) for text in texts()]
    findings = (Finding("identity", True), Finding("text", False))
    entries = history.line(tmp_path, history.concepts(2), reasons=("learned", "noise"), held=(2,))
    marked = [_with_verdict(one, Verdict(False, ("learned", "noise"), findings)) for one in entries]
    page = render("pets", marked)
    assert '<li>✓ learned</li><li class="bad">✕ noise</li>' in page
    assert "- ✓ learned\n- ✕ noise" in summary_markdown("pets", marked)
    loud = [_with_verdict(one, Verdict(False, tuple(texts()))) for one in entries]
    outline = Outline(render("pets", loud))
    assert "<script" not in render("pets", loud) and "<img src=x" not in render("pets", loud)
    squeezed = "".join(outline.text.split())
    for text in hostile:
        assert "".join(text.split()) in squeezed


def _with_verdict(entry, verdict):
    record = replace(entry.release.record, verdict=verdict)
    return replace(entry, release=replace(entry.release, record=record))
