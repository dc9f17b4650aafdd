"""Prompts: templates, the placeholders in them, and what people write that means something else.

`understand` reads what somebody typed. Prompts of other tools hold notations that are not read
here: `(word:1.3)`, `<lora:...>`, `embedding:...`. They would be drawn as letters, so they are
refused, and milder ones are told.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from l2dm import escape
from l2dm.doors import Concept
from l2dm.errors import BadPrompt

TEMPLATES = ("a photo of a {}", "a picture of a {}", "a {}")
EVALUATION_TEMPLATES = ("a photo of a {}", "a picture of a {}")
MAX_PROMPT = 10_000  # characters; no base reads a tenth of it

_PLACEHOLDER = re.compile(r"<([a-z][a-z0-9_-]*)>")
_ANGLED = re.compile(r"(?<!<)<++([^<>]*+)>++")  # `<rex>`, `< rex >`, `<<rex>>`
_OPENED = re.compile(r"<++(\s*)([\w-]*)")
_CLOSED = re.compile(r">++")
_LAST = re.compile(r"([\w-]+)\s*\Z")  # word before it
_REACH = 80  # characters in which that is looked for
_SHOWN = 60  # characters of a prompt in a message


@dataclass(frozen=True)
class Understood:
    """A prompt as it is drawn. notes: what its writer should know, a sentence each."""

    prompt: str
    notes: tuple[str, ...] = ()


class _Notation(NamedTuple):
    """What another tool would read here. advice: what to do instead; `{names}` are our words."""

    pattern: re.Pattern[str]
    advice: str


_REFUSED = (
    _Notation(
        re.compile(r"<\s*(?:lora|lyco|locon|loha|lokr|hypernet|ti)\s*:[^<>]*>", re.IGNORECASE),
        "files are not loaded by a prompt here; name a concept of this line instead: {names}",
    ),
    _Notation(
        re.compile(r"\bembedding:\s*[^\s,()<>]+", re.IGNORECASE),
        "embeddings are not loaded by a prompt here; name a concept of this line instead: {names}",
    ),
    _Notation(
        re.compile(r"[(\[][^()\[\]]*:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*[)\]]"),
        "weights of words are not read here, they would be drawn as letters; leave them out, and "
        "give a concept's strength beside the prompt (--scale NAME=1.3)",
    ),
    _Notation(
        re.compile(r"<[^<>\s:]+:\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*>"),
        "a concept is written without a number; give its strength beside the prompt "
        "(--scale NAME=1.3)",
    ),
)
_TOLD = (
    _Notation(re.compile(r"\(\([^()]*\)\)|\[[^\[\]]*\]"), "brackets are no emphasis here"),
    _Notation(re.compile(r"\{[^{}|]*\|[^{}]*\}|__[\w/-]+__"), "nothing is chosen at random here"),
    _Notation(re.compile(r"\b(?:BREAK|AND)\b"), "it divides nothing here"),
)


def placeholders_in(prompt: str) -> tuple[str, ...]:
    """Names of the concepts that a prompt mentions, in order, each once."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(prompt)))


def require_known(prompt: str, known: Collection[str]) -> None:
    """Raise BadPrompt when a prompt names a concept that the line has not learned."""
    unknown = [f"<{name}>" for name in placeholders_in(prompt) if name not in known]
    if unknown:
        raise BadPrompt(_unknown(prompt, unknown, known))


def without_placeholders(prompt: str, names: Collection[str] | None = None) -> str:
    """The prompt as the base model can read it: placeholders removed, class nouns kept.

    names: those that are removed; all if none are given.
    """

    def kept(found: re.Match[str]) -> str:
        return " " if names is None or found[1] in names else found[0]

    return " ".join(_PLACEHOLDER.sub(kept, prompt).split())


def understand(prompt: str, concepts: Sequence[Concept]) -> Understood:
    """A prompt as somebody typed it, read as they meant it where that is sure.

    `<Rex>`, `< rex >` and `<<rex>>` are read as `<rex>`, and told. Raises BadPrompt with every
    problem at once: an unknown placeholder in any case, one with half of its brackets, a notation
    of other tools, letters that cannot be read.
    """
    if problem := _unreadable(prompt):
        raise BadPrompt(problem)
    names = [concept.name for concept in concepts]
    foreign = [found for one in _REFUSED for found in _foreign(one, prompt, names)]
    plain = prompt
    for one in _REFUSED:
        plain = one.pattern.sub(" ", plain)
    unknown, notes = _angled(plain, names)
    halves, told = _unpaired(_ANGLED.sub(" ", plain), prompt, names)
    problems = foreign + ([_unknown(prompt, unknown, names)] if unknown else []) + halves
    if problems:
        raise BadPrompt(problems)
    read = _ANGLED.sub(lambda found: _placeholder(found[1], names) or found[0], prompt)
    for one in _TOLD:
        notes += [
            f"{found[0]!r} in the prompt is read as plain text: {one.advice}"
            for found in one.pattern.finditer(read)
        ]
    notes += [*told, *_bare(read, concepts)]
    return Understood(read, tuple(dict.fromkeys(notes)))


def is_empty(prompt: str) -> bool:
    """Whether nothing in a prompt can be seen: no letter, nor any other sign."""
    return all(unicodedata.category(letter)[0] in "ZC" for letter in prompt)


def _unreadable(prompt: str) -> str:
    """Why a text cannot be a prompt; "" if it can."""
    if len(prompt) > MAX_PROMPT:
        return (
            f"prompt {shortened(prompt)}: expected at most {MAX_PROMPT:,} characters, found "
            f"{len(prompt):,}; shorten it"
        )
    odd = {letter for letter in prompt if unicodedata.category(letter) in ("Cc", "Cs")}
    if odd := odd - set("\t\n\r"):
        return (
            f"prompt {shortened(prompt)}: expected text, found a control character or half a "
            f"letter ({', '.join(sorted(map(ascii, odd))[:3])}); remove it, and write the prompt "
            "in UTF-8"
        )
    return ""


def _foreign(notation: _Notation, prompt: str, names: Sequence[str]) -> Iterator[str]:
    known = ", ".join(f"<{name}>" for name in sorted(names)) or "it knows none yet"
    for found in notation.pattern.finditer(prompt):
        yield (
            f"prompt {shortened(prompt)}: expected plain words and <names>, found {found[0]!r}; "
            f"{notation.advice.replace('{names}', known)}"
        )


def _angled(prompt: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Unknown placeholders, and notes about those that are read in another way."""
    unknown, notes = [], []
    for found in _ANGLED.finditer(prompt):
        word = _placeholder(found[1], names)
        if word == found[0]:
            continue
        if word:
            notes.append(f"{found[0]!r} in the prompt is read as {word}")
        elif found[1].strip() and not re.search(r"\s", found[1].strip()):
            unknown.append(found[0])
        else:
            notes.append(_as_text(found[0]))
    return unknown, notes


def _unpaired(plain: str, prompt: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Brackets without their other half: problems where a name is meant, notes where none is.

    plain: the prompt without what stands between two brackets.
    """
    problems, notes = dict[str, None](), dict[str, None]()
    for found in _OPENED.finditer(plain):
        name = _placeholder(found[2], names)
        if name or (not found[1] and found[2][:1].isalpha()):
            problems[_half(prompt, found[0], ">", name, names)] = None
        else:
            notes[_as_text(found[0].split()[0])] = None
    for found in _CLOSED.finditer(plain):
        before = plain[max(0, found.start() - _REACH) : found.start()]
        word = _LAST.search(before)
        if word and (name := _placeholder(word[1], names)):
            problems[_half(prompt, word[0] + found[0], "<", name, names)] = None
        else:
            notes[_as_text(found[0])] = None
    return list(problems), list(notes)


def _as_text(found: str) -> str:
    return f"{found!r} in the prompt is read as plain text: no concept's name"


def _half(prompt: str, found: str, missing: str, name: str, names: Sequence[str]) -> str:
    known = ", ".join(f"<{one}>" for one in sorted(names)) or "none yet"
    return (
        f"prompt {shortened(prompt)}: expected < and > around a concept's name, found "
        f"{shortened(found.strip())} without its {missing}; "
        f"{f'write {name}' if name else f'this line knows: {known}'}"
    )


def _placeholder(inner: str, names: Sequence[str]) -> str:
    """The placeholder that is meant between < and >, "" if none is."""
    name = inner.strip().lower()
    return f"<{name}>" if name in names else ""


def _bare(prompt: str, concepts: Sequence[Concept]) -> Iterator[str]:
    """Names without their brackets. One that is part of a noun is no slip beside its own name."""
    named, plain = placeholders_in(prompt), _PLACEHOLDER.sub(" ", prompt)
    for concept in concepts:
        if concept.name in named and concept.name in concept.class_noun.lower().split():
            continue
        found = re.search(rf"(?<![\w-]){re.escape(concept.name)}(?![\w-])", plain, re.IGNORECASE)
        if found:
            yield (
                f"{found[0]!r} in the prompt is read as a plain word; the concept is written "
                f"{concept.placeholder}"
            )


def _unknown(prompt: str, unknown: Sequence[str], known: Collection[str]) -> str:
    learned = ", ".join(f"<{name}>" for name in sorted(known)) or "none yet"
    sentence = (
        f"prompt {shortened(prompt)} names {', '.join(unknown)}, which this line has not learned; "
        f"it knows: {learned}"
    )
    near = [
        f"<{one}>"
        for name in unknown
        for one in get_close_matches(name.strip("<> ").lower(), known, n=1, cutoff=0.75)
    ]
    return f"{sentence}; the nearest: {', '.join(near)}" if near else sentence


def shortened(prompt: str) -> str:
    """A prompt as a message shows it."""
    return repr(escape.shortened(prompt, _SHOWN))
