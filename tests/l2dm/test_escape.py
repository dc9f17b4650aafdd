"""One escape for every medium: nothing steers it, nothing is lost. Judged by what shows it."""

import html
import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

from l2dm import escape
from tests.worlds.hostile_text import CONTROL, MARKUP, WORDS, texts

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Seen(HTMLParser):
    """Tags and text of a page, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(markdown: str) -> Seen:
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Seen(renderer.render(markdown))


def test_there_are_enough_hostile_texts() -> None:
    assert len(set(texts())) >= 300


def test_a_terminal_obeys_nothing_and_shows_everything() -> None:
    for text in texts():
        _judge_terminal(text)


def test_markdown_takes_no_markup_and_loses_nothing() -> None:
    for text in texts():
        _judge_markdown(text)


def test_a_code_span_holds_anything() -> None:
    for text in filter(str.strip, texts()):
        found = seen(f"Base: {escape.code(text)}.\n")
        assert found.tags == ["p", "code"], text
        assert _squeezed(escape.line(text)) in _squeezed(found.text)


def _judge_terminal(text: str) -> None:
    shown = escape.line(text)
    assert not CONTROLS.search(shown) and "\n" not in shown and "\t" not in shown
    assert shown.encode()
    for character in text:
        number = f"{ord(character):02x}"
        assert character in shown or number in shown or repr(character)[1:-1] in shown
    if text.isprintable():
        assert shown == text
    assert CONTROLS.search(escape.lines(text)) is None
    assert escape.lines(text).count("\n") == text.count("\n")


def _judge_markdown(text: str) -> None:
    wanted = escape.line(text)
    item, cell, bare = (
        seen(f"head\n\n* {escape.markdown(text)}\n"),
        seen(f"| a | b |\n|---|---|\n| {escape.markdown(text)} | 1 |\n"),
        seen(f"**{escape.markdown('x' + text)}**\n"),
    )
    assert item.tags == ["p", "ul", "li"]
    assert cell.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert _squeezed(wanted) in _squeezed(item.text)
    assert _squeezed(wanted) in _squeezed(cell.text)
    assert set(bare.tags) <= {"p", "strong"}
    assert _squeezed("x" + wanted) in _squeezed(bare.text)


def test_what_is_not_hostile_stays_as_it_is() -> None:
    sentence = "Identity accuracy of the new concept rex is 0.62, at least the required 0.50."
    assert escape.markdown(sentence) == escape.line(sentence) == sentence
    assert escape.line("🐕‍🦺 café 犬 🏳️‍🌈") == "🐕‍🦺 café 犬 🏳️‍🌈"
    assert MARKUP and CONTROL and WORDS


def test_what_shows_it_knows_its_escapes() -> None:
    """MLflow's (showdown) and Kubeflow's (markdown-to-jsx) know these only."""
    known = set("\\`*_{}[]()>#+.!~=|:-")
    shown = [escape.markdown(text) for text in texts()]
    escaped = {found for text in shown for found in re.findall(r"\\(.)", text)}
    assert escaped <= known
    entities = {found for text in shown for found in re.findall(r"&[^;]*;", text)}
    assert entities <= {"&amp;", "&lt;", "&gt;"}


def _squeezed(text: str) -> str:
    """HTML shows a run of spaces as one."""
    return re.sub(r"[\s\u00a0]+", "", html.unescape(html.escape(text)))
