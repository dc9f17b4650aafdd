"""Prompts: templates, and the placeholders in them."""

import re
from collections.abc import Collection

from l2dm.errors import BadPrompt

TEMPLATES = ("a photo of a {}", "a picture of a {}", "a {}")
EVALUATION_TEMPLATES = ("a photo of a {}", "a picture of a {}")

_PLACEHOLDER = re.compile(r"<([a-z][a-z0-9_-]*)>")


def placeholders_in(prompt: str) -> tuple[str, ...]:
    """Names of the concepts that a prompt mentions, in order, each once."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(prompt)))


def require_known(prompt: str, known: Collection[str]) -> None:
    """Raise BadPrompt when a prompt names a concept that the line has not learned."""
    unknown = [name for name in placeholders_in(prompt) if name not in known]
    if unknown:
        learned = ", ".join(f"<{name}>" for name in sorted(known)) or "none yet"
        named = ", ".join(f"<{name}>" for name in unknown)
        raise BadPrompt(
            f"prompt {prompt!r} names {named}, which this line has not learned; it knows: {learned}"
        )


def without_placeholders(prompt: str) -> str:
    """The prompt as the base model can read it: placeholders removed, class nouns kept."""
    return " ".join(_PLACEHOLDER.sub(" ", prompt).split())
