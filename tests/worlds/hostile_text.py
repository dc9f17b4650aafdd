"""What somebody may type, name a file or send: made by rules, the same every time."""

import random

MARKUP = (
    "[/x]", "[bold red]up", "[link=http://evil]x[/link]", "[[", "]", "[/", "[@click=exit]a[/]",
    "<sunny>", "<script>alert(1)</script>", "</td></table>", "<!--", "-->", "&lt;rex&gt;", "&amp;",
    "<img src=x onerror=alert(1)>", "{{ 7*7 }}", "{% raw %}", "${HOME}", "$(id)", "`id`", "%s%n",
    "*bold*", "_under_", "**", "__", "~~gone~~", "# heading", "1. one", "- item", "+ item",
    "> quote",
    "| a | b |", "|---|", "[text](http://evil)", "![p](http://evil/p.png)", "http://evil.example/x",
    "www.evil.example", "```", "````x", "``", "\\", "\\*", "\\n", "===", "    code", "a  b",
    ":smile:",
    "'", '"', "a'b", "'; DROP TABLE x; --", '"}', "../../x", "C:\\x", "{", "}", "=1+1", "@SUM(A1)",
)  # fmt: skip
CONTROL = (
    "\x1b[2J", "\x1b]0;title\x07", "\x1b[31mred", "\x9b31m", "\x00", "\x07", "\x08\x08", "\r",
    "\r\n",
    "\n", "\nfake: promoted", "\n\n## heading", "\t", "\x0b", "\x0c", "\x7f", "\x85", "\u2028",
    "\u2029", "\u202egnp.exe", "\u2066", "\u200f", "\ufeff", "\udc80", "\ud800", "\U000e0041",
)  # fmt: skip
WORDS = (
    "dog", "child's toy", "T-shirt (red)", "a, b & c", "café", "犬", "\U0001f415\u200d\U0001f9ba",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "cafe\u0301", "ﬁ",
    "\u200b", "Ω" * 40, "x" * 300,
)  # fmt: skip


def texts(count: int = 400) -> list[str]:
    """All of the above, then mixtures of them."""
    parts = (*MARKUP, *CONTROL, *WORDS)
    drawn = random.Random(12)
    mixed = [
        "".join(drawn.choice(parts) for _ in range(drawn.randint(2, 4)))
        for _ in range(count - len(parts))
    ]
    return [*parts, *mixed]


def printable(count: int = 400) -> list[str]:
    """Those that a class noun may be: printable, without < > / and backslashes."""
    found = [text.strip() for text in texts(4 * count)]
    kept = [
        text[:40].strip()
        for text in found
        if text.isprintable() and not set(text) & set("<>/\\") and any(c.isalpha() for c in text)
    ]
    return list(dict.fromkeys(kept))[:count]
