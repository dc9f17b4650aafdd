"""What `benchmarks.chaos` counts at the end: states, chains, versions and aliases of every line."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from components.services.line.ledger import ENDINGS, Event, summed
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry, Version


@dataclass(frozen=True)
class Counts:
    """All but the first four must be 0."""

    uploads: int = 0
    ended: int = 0  # in exactly one terminal state
    promoted: int = 0
    versions: int = 0
    lost: int = 0  # uploads without a terminal state
    ended_twice: int = 0
    wrong_state: int = 0  # promoted without a promotion, held with one, bad ones not refused
    broken_chains: int = 0  # promotions whose source is not the champion of then
    stale_promotions: int = 0  # champions that were learned from another version than their source
    doubled_promotions: int = 0  # uploads that became champion more than once
    doubled_versions: int = 0  # versions of one upload beyond its first
    wrong_aliases: int = 0  # that do not say what the records say

    def __add__(self, other: "Counts") -> "Counts":
        names = [one.name for one in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def wrong(self) -> int:
        """How many things are not as they must be."""
        return sum(getattr(self, one.name) for one in fields(self)[4:])


def count(home: Home, registry: Registry, line: str, uploads: Sequence[str]) -> Counts:
    """What became of a line. uploads: concept names that were put into its inbox."""
    events, versions = Records(home.store, line).events(), registry.versions(line)
    inbox = Uploads(home.store, line)
    ends = Counter(
        (event.facts["concept"], event.facts["upload"]) for event in events if event.kind == "ended"
    )
    times = [ends[name, inbox.digest(name)] for name in uploads]
    states = {one.name: one.state for one in Records(home.store, line).concepts()}
    promotions = [event for event in events if event.kind == "promotion"]
    parents = {one.number: one.facts for one in versions}
    crowned = Counter(parents[event.facts["target"]].concept for event in promotions)
    taught = Counter(version.facts.concept for version in versions)
    now, aliases = summed(events).standing, registry.aliases(line)
    wanted = {"champion": now.champion, "previous": now.previous, "challenger": now.challenger}
    return Counts(
        uploads=len(uploads),
        ended=sum(one == 1 for one in times),
        promoted=len(promotions),
        versions=len(versions),
        lost=sum(states.get(name) not in ENDINGS for name in uploads),
        ended_twice=sum(one > 1 for one in ends.values()) + len({
            end for end in ends if not end[0].startswith("mend")
        } - {(name, inbox.digest(name)) for name in uploads}),
        wrong_state=sum(states.get(name) != _wanted(name) for name in uploads)
        + sum(crowned[name] != (_wanted(name) == "promoted") for name in uploads),
        broken_chains=_breaks(promotions),
        stale_promotions=sum(
            parents[event.facts["target"]].parent_version != event.facts["source"]
            for event in promotions
        ),
        doubled_promotions=sum(times - 1 for times in crowned.values()),
        doubled_versions=sum(times - 1 for times in taught.values()),
        wrong_aliases=sum(dict(aliases).get(name, 0) != number for name, number in wanted.items()),
    )  # fmt: skip


def _breaks(promotions: Sequence[Event]) -> int:
    champion, breaks = 0, 0
    for event in promotions:
        breaks += event.facts["source"] != champion
        champion = event.facts["target"]
    return breaks


def _wanted(name: str) -> str:
    return {"bad": "refused", "held": "held"}.get(name.partition("-")[0], "promoted")


def story(home: Home, registry: Registry, line: str) -> str:
    """Everything that was recorded of a line, and its versions: to read when a count is wrong."""
    facts = ("at", "concept", "run", "attempt", "fence", "task", "state", "version")
    told = (*facts, "source", "target", "parent_version", "reasons")
    lines = [f"line {line}: aliases {dict(registry.aliases(line))}"]
    lines += [_version(version) for version in registry.versions(line)]
    for event in Records(home.store, line).events():
        facts_of: Mapping[str, object] = event.facts
        words = [
            f"{name}={facts_of[name]}" for name in told if facts_of.get(name) not in (None, "")
        ]
        lines.append(f"  {event.number:4d} {event.kind:10s} {' '.join(words)}")
    return "\n".join(lines)


def _version(version: Version) -> str:
    facts = version.facts
    return (
        f"  version {version.number}: {facts.concept} {facts.task} {facts.digest} from "
        f"{facts.parent_version}"
    )
