"""A line's records without a concept that was erased: what their order rests on stays, no name.

Events are never removed and keep their numbers, times and ids, so that the chain of champions,
task ids and versions can still be followed. An event of the concept itself becomes `expunged`,
which says what it was and no more; in the others, sentences that name it say `(erased)`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from components.services.line.ledger import Event
from components.services.line.records import Records

GONE = "(erased)"
STAMP = ("at", "by", "id")
LEFT: Mapping[str, tuple[str, ...]] = {  # what an event of the concept keeps, besides its stamp
    "begun": ("task", "parent_version", "recipe"),
    "ended": ("state", "task", "version"),
    "forgetting": ("line", "task", "parent_version"),
}
MOVED = {"forgets": "", "reason": ""}  # `forgotten` moved the champion, so it stays what it is
AS_IT_IS = {"kind", "task", "line", "recipe", "digest", *STAMP}
FIRST, LAST = ("started", "retried", "cancelled"), ("ended",)


def expunge(records: Records, events: Iterable[Event], name: str, but: int) -> int:
    """Rewrite every event that tells of this concept; how many did.

    but: number of one that stays, so that whoever repeats it after a kill finds the concept. Runs
    first and ends last: a concept whose end is recorded is learned by nobody meanwhile.
    """
    order = {**dict.fromkeys(FIRST, 0), **dict.fromkeys(LAST, 2)}
    changed = 0
    for event in sorted(events, key=lambda one: order.get(one.kind, 1)):
        facts = without(event, name) if event.number != but else None
        if facts is not None:
            records.rewrite(event.number, facts)
            changed += 1
    return changed


def tells_of(event: Event, name: str) -> bool:
    """Whether it is an event of this concept."""
    facts = event.facts
    swept = event.kind == "swept" and facts.get("upload") == name
    return swept or name in (facts.get("concept"), facts.get("forgets"))


def without(event: Event, name: str) -> dict[str, Any] | None:
    """The facts of an event without the concept; None where it is not in them."""
    facts = event.facts
    if not tells_of(event, name):
        scrubbed: dict[str, Any] = {
            key: value if key in AS_IT_IS else _scrubbed(value, name)
            for key, value in facts.items()
        }
        return scrubbed if scrubbed != dict(facts) else None
    if event.kind == "forgotten":
        return {**facts, **MOVED}
    if event.kind == "erasing":
        return {**facts, "forgets": ""}
    kept = {key: facts[key] for key in (*STAMP, *LEFT.get(event.kind, ())) if key in facts}
    return {"kind": "expunged", "was": event.kind, **kept}


def names(text: str, name: str) -> bool:
    """Whether a text names the concept: as a word of its own, in any case."""
    return _word(name).search(text) is not None


def _scrubbed(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _word(name).sub(GONE, value)
    if isinstance(value, Mapping):
        return {key: _scrubbed(one, name) for key, one in value.items() if key != name}
    if isinstance(value, list):
        others = [
            one for one in value if not (isinstance(one, Mapping) and one.get("name") == name)
        ]
        return [_scrubbed(one, name) for one in others]
    return value


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9_-]){re.escape(name)}(?![a-z0-9_-])", re.IGNORECASE)
