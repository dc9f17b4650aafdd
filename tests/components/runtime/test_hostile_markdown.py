"""Kubeflow's pages, MLflow's notes, README of an export, events of a bucket: any text is data."""

import ast
import html
import json
import re

import pytest
from markdown_it import MarkdownIt

from components.runtime.check_outcome import told
from components.runtime.outcomes import table, verdict_text
from components.services.tracking.registry import VersionFacts, told_of
from components.services.wakeups.events import Inbox, lines_of
from l2dm import doors, escape
from l2dm.doors import Finding
from l2dm.errors import BadInput
from l2dm.export import readme
from tests.worlds.hostile_text import printable, texts

OURS = {"p", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown(markdown: str, also: frozenset[str] = frozenset()) -> str:
    """The text that a reader sees, without spaces; only tags that we mean are in it."""
    page = RENDERER.render(markdown)
    assert set(re.findall(r"<([a-z0-9]+)", page)) <= OURS | also, markdown
    return "".join(html.unescape(re.sub(r"<[^>]*>", "", page)).replace("\u00a0", " ").split())


def plain(text: str) -> str:
    return "".join(escape.line(text).split())


def test_a_verdict_shows_every_reason_and_marks_what_closed() -> None:
    for text in texts():
        findings = (Finding("identity", True), Finding("text", False))
        facts = VersionFacts("t0001", "rex", "dog", 0, "d", False, ("ok", text), {}, findings)
        page = shown(verdict_text(facts, 1, False))
        assert "✓ok" in page and f"✕{plain(text)}" in page


def test_a_row_of_scores_stays_a_row_whatever_the_noun() -> None:
    for noun in (*printable(), *texts()):
        concept = doors.Concept("rex", noun)
        matrix = ((0.1,), (0.5,))
        scores = doors.Scores("b", ("base", "t0001"), (concept,), {"id": matrix}, (), {})
        page = table(scores)
        assert len(page.splitlines()) == 3
        assert f"<rex>{plain(noun)}0.500" in shown(page)


def test_a_check_shows_its_reasons_and_names() -> None:
    for text in texts():
        check = doors.Check("b", "t", 1, "regressed", "model", 0.0, (), (text,))
        assert plain(text) in shown(told(check, 3, 2, [text]))


def test_what_a_registry_says_in_words_is_no_markup() -> None:
    for text in texts():
        assert plain(text) in shown(told_of(2, {"rex": 1}, {text: 2}))


@pytest.mark.parametrize("form", ["lora", "gated", "merged"])
def test_the_readme_of_an_export_runs_and_reads_for_any_noun(form: str) -> None:
    for noun in printable(150):
        facts = readme.Facts(
            "pets", "t0001", "StableDiffusionPipeline", form, "token", [doors.Concept("rex", noun)],
            "/bases/a `b`", "f" * 16, None, 15, 4.0,
        )  # fmt: skip
        program = ast.parse(readme.snippet(facts))
        assert facts.prompt in {
            node.value for node in ast.walk(program) if isinstance(node, ast.Constant)
        }
        head = readme.text(facts).split("\n## ")[0]
        assert plain(noun) in shown(head, frozenset({"h1", "code"}))


def test_events_of_a_bucket_may_hold_any_key() -> None:
    inbox = Inbox("ours")
    for text in texts():
        key = f"inbox/{text}/{text}/concept.json"
        record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "ours"}}}
        record["s3"]["object"] = {"key": key}  # type: ignore[index]
        body = json.dumps({"Records": [record]})
        try:
            found = lines_of(body, inbox)
        except BadInput as error:
            assert str(error)
            continue
        assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", line) for line in found)
