"""The page that a report is written on: one self-contained HTML text, light and dark, no scripts.

Everything that reaches the page as text goes through `text`, which escapes it.
"""

import base64
from collections.abc import Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark;--surface:#fff;--raised:#f6f7f9;--ink:#1a1d24;--soft:#5b6270;
--rule:#dfe3e9;--heat:#2f74dd;--good:#11704a;--good-back:#e2f4ea;--bad:#a3261b;--bad-back:#fdeae7;
--c1:#1f6fc4;--c2:#c4560b;--c3:#0c8a65;--c4:#b0478f;--c5:#6b5bd0;--c6:#7a6a00}
@media (prefers-color-scheme:dark){:root{--surface:#14161b;--raised:#1d2027;--ink:#e7e9ee;
--soft:#a0a7b4;--rule:#333843;--heat:#2f74dd;--good:#6fd3a2;--good-back:#14322a;--bad:#ff9d8f;
--bad-back:#3d1d1a;--c1:#6cb0f5;--c2:#f09a55;--c3:#4fc79f;--c4:#e58cc6;--c5:#a99bff;--c6:#d3c04a}}
*{box-sizing:border-box}
body{margin:0;background:var(--surface);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1240px;margin:0 auto;padding:36px 28px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:19px;margin:44px 0 4px;padding-top:20px;border-top:1px solid var(--rule)}
h3{font-size:14px;margin:0 0 6px}
p{margin:4px 0 14px;max-width:78ch}
.soft,.note{color:var(--soft)} .note{font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(168px,1fr));gap:12px;
margin:22px 0 0}
.tile{background:var(--raised);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:25px;font-weight:600;line-height:1.25}
.tile span{display:block;font-size:13px;color:var(--soft);line-height:1.35}
.tile span:first-child{color:var(--ink);font-weight:600}
table{border-collapse:collapse;font-size:13.5px}
th{font-weight:600;text-align:left;color:var(--soft);font-size:12.5px;vertical-align:bottom}
th,td{padding:6px 16px 6px 0} .name{white-space:nowrap} td.n,th.n{text-align:right}
td.n{white-space:nowrap}
.lined{width:100%} .lined td{border-top:1px solid var(--rule);vertical-align:top}
.lined svg{display:block}
.wide{overflow-x:auto}
.chip{display:inline-block;border-radius:99px;padding:1px 9px;font-size:12.5px;font-weight:600;
background:var(--raised);color:var(--soft);white-space:nowrap;margin-right:4px}
.chip.good{background:var(--good-back);color:var(--good)}
.chip.bad{background:var(--bad-back);color:var(--bad)}
ul.reasons{margin:0;padding-left:17px} ul.reasons li{margin:0 0 2px}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));
gap:30px 36px;margin-top:16px}
.heat{border-collapse:separate;border-spacing:2px}
.heat td{padding:6px 8px;text-align:center;min-width:54px;border-radius:5px}
.heat th{padding:4px 8px;text-align:center} .heat th.row{text-align:right;padding-left:0;
vertical-align:middle;white-space:nowrap}
.heat td.new{box-shadow:inset 0 0 0 2px var(--ink)} .heat td.none{color:var(--soft)}
.heat .gap td{padding:0;height:6px}
.legend{display:flex;align-items:center;gap:8px;font-size:12.5px;color:var(--soft);margin-top:6px}
.ramp{width:120px;height:10px;border-radius:3px;
background:linear-gradient(90deg,var(--surface),color-mix(in srgb,var(--heat) 75%,var(--surface)));
border:1px solid var(--rule)}
.blocks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,376px),1fr));
gap:26px 16px;margin-top:16px}
.strip{display:grid;grid-template-columns:42px minmax(0,max-content) 1fr;gap:7px;
align-items:center;margin-bottom:3px;font-size:12.5px;color:var(--soft)}
.strip.real{margin-bottom:10px} .strip span:first-child{text-align:right}
.strip img{display:block;max-width:100%;height:auto;border-radius:3px}
.strip b{display:block;color:var(--ink);font-weight:600}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:22px;
margin-top:14px}
svg text{fill:var(--soft);font-size:11px} .key{font-size:12.5px;margin-right:12px;color:var(--soft)}
.key i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:5px;
vertical-align:middle}
code{font-size:.93em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;font-size:13.5px;margin:12px 0}
dt{font-weight:600} dd{margin:0;color:var(--soft);max-width:82ch}
@media print{main{padding:0} h2{break-after:avoid}}
"""


def text(value: object) -> str:
    """Anything as text that is safe inside HTML and inside a quoted attribute."""
    return escape(str(value), quote=True)


def page(title: str, parts: Sequence[str]) -> str:
    """The whole document. parts: HTML of its sections; empty ones are left out."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def section(heading: str, caption: str, body: str) -> str:
    """A heading, what to look for, and the content; nothing without content. caption: HTML."""
    explained = f"<p>{caption}</p>\n" if caption else ""
    return f"<h2>{text(heading)}</h2>\n{explained}{body}" if body else ""


def tile(name: str, value: str, meaning: str) -> str:
    """One headline number."""
    return (
        f'<div class="tile"><span>{text(name)}</span><b>{text(value)}</b>'
        f"<span>{text(meaning)}</span></div>"
    )


def chip(label: str, tone: str = "") -> str:
    """A small label; tone: "", "good" or "bad"."""
    return f'<span class="chip {text(tone)}">{text(label)}</span>'


def concept(name: str, class_noun: str) -> str:
    """How a prompt names a concept, kept on one line."""
    return f'<span class="name">{text(f"<{name}> {class_noun}")}</span>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table with ruled lines. head: plain texts; rows: HTML cells; numbers: right-aligned."""

    def cells(tag: str, line: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if index in numbers else ''}>{cell}</{tag}>"
            for index, cell in enumerate(line)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = cells("th", [text(name) for name in head])
    return (
        f'<div class="wide"><table class="lined"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(png: bytes, description: str) -> str:
    """A PNG inside the page itself, as a data URI."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{text(description)}" src="data:image/png;base64,{data}">'


def number(value: float | None, digits: int = 2) -> str:
    """A number for reading; a dash where it is missing, never 0, and no minus before a zero."""
    if value is None:
        return "–"
    shown = f"{value:.{digits}f}"
    return shown.replace("-", "−") if float(shown) else shown.lstrip("-")
