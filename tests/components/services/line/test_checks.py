"""What is due, what runs and which champions came before, summed from made-up events."""

from datetime import UTC, datetime
from typing import Any

import pytest

from components.services.line.checks import require_cron, seed_of
from components.services.line.ledger import Event, EventKind, Ledger, summed
from l2dm.errors import BadSpec

Made = tuple[EventKind, dict[str, Any]]


def ledger(*given: Made) -> Ledger:
    """The sum of these events; it must survive being written down."""
    events = [Event(number, kind, facts) for number, (kind, facts) in enumerate(given, start=1)]
    found = summed(events)
    assert Ledger.from_data(found.to_data()) == found
    return found


def promotion(source: int, target: int) -> Made:
    return "promotion", {"source": source, "target": target}


def scheduled(cron: str, at: str = "2026-11-20T12:00:00+0000", **more: Any) -> Made:
    return "scheduled", {"cron": cron, "settings": ["check.policy=roll_back"], "at": at, **more}


def checked(seed: int, version: int = 1, health: str = "healthy") -> Made:
    at = "2026-11-21T03:00:05+0000"
    facts = {"seed": seed, "version": version, "health": health, "cause": "", "at": at}
    return "checked", {**facts, "digest": "d", "reasons": ["made up"]}


def unchecked(seed: int) -> Made:
    return "unchecked", {"seed": seed, "not_before": 100.0}


def unix(day: int, hour: int, minute: int = 0) -> float:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC).timestamp()


def due(found: Ledger, now: float) -> int | None:
    return found.checks.due("pets", found.standing.champion, now)


NIGHTLY = (promotion(0, 1), scheduled("0 3 * * *"))


def test_a_check_is_due_from_its_instant_on_and_once() -> None:
    line = ledger(*NIGHTLY)
    assert due(line, unix(20, 23)) is None  # the schedule is younger than today's instant
    seed = due(line, unix(21, 3))
    assert seed == seed_of("pets", datetime(2026, 11, 21, 3, tzinfo=UTC))
    assert due(line, unix(21, 23)) == seed  # nobody looked for hours: still the same
    done = ledger(*NIGHTLY, checked(seed))
    assert due(done, unix(21, 23)) is None
    assert due(done, unix(22, 3)) not in (None, seed)


def test_of_several_missed_nights_only_the_last_counts() -> None:
    assert due(ledger(*NIGHTLY), unix(27, 4)) == seed_of(
        "pets", datetime(2026, 11, 27, 3, tzinfo=UTC)
    )


def test_a_check_is_awaited_from_its_instant_on_until_one_finds_something() -> None:
    for keeper in ("dispatcher", "cluster"):
        clock = scheduled("0 3 * * *", keeper=keeper)
        line = ledger(promotion(0, 1), clock, unchecked(7), unchecked(7), unchecked(7))
        assert line.checks.awaited(1) == unix(21, 3)
        assert line.checks.found_last() == 0
    done = ledger(*NIGHTLY, checked(7))  # at five past three
    assert done.checks.awaited(1) == unix(22, 3)
    assert done.checks.found_last() == unix(21, 3) + 5
    again = ledger(*NIGHTLY, checked(7), scheduled("0 4 * * *", "2026-11-25T12:00:00+0200"))
    assert again.checks.awaited(1) == unix(26, 4)


def test_no_check_is_awaited_without_clock_or_from_before_the_first_champion() -> None:
    assert ledger(promotion(0, 1)).checks.awaited(1) == 0
    assert ledger(scheduled("0 3 * * *")).checks.awaited(0) == 0
    later: Made = ("promotion", {"source": 0, "target": 1, "at": "2026-12-01T12:00:00+0000"})
    line = ledger(scheduled("0 3 * * *"), later)
    assert line.checks.awaited(1) == unix(21, 3) + 11 * 24 * 3600  # not a night of before
    assert ledger(*NIGHTLY, scheduled("")).checks.awaited(1) == 0


def test_lines_do_not_share_seeds() -> None:
    instant = datetime(2026, 11, 21, 3, tzinfo=UTC)
    assert seed_of("pets", instant) != seed_of("cups", instant)


def test_a_line_without_clock_or_champion_is_never_due() -> None:
    assert due(ledger(promotion(0, 1)), unix(27, 4)) is None
    assert due(ledger(scheduled("0 3 * * *")), unix(27, 4)) is None
    ended = ledger(*NIGHTLY, scheduled(""))
    assert ended.checks.schedule is None
    assert due(ended, unix(27, 4)) is None


def test_the_dispatcher_leaves_a_clock_of_the_cluster_alone() -> None:
    kept = ledger(promotion(0, 1), scheduled("0 3 * * *", keeper="cluster"))
    assert due(kept, unix(27, 4)) is None


def test_times_of_other_zones_are_the_same_instant() -> None:
    late = scheduled("0 3 * * *", "2026-11-21T04:30:00+0200")  # 02:30 UTC
    assert due(ledger(promotion(0, 1), late), unix(21, 3, 1)) is not None


@pytest.mark.parametrize(
    "cron", ["nightly", "0 3 * *", "61 3 * * *", "* * * * * *", "0 0 3 * * * *"]
)
def test_a_wrong_cron_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(BadSpec, match=r"expected five fields such as '0 3 \* \* \*'"):
        require_cron(cron)


def test_a_run_is_open_until_its_seed_is_answered() -> None:
    begun: Made = ("checking", {"run": "r", "seed": 7, "attempt": 1, "fence": 2})
    assert ledger(begun).checks.running is not None
    assert ledger(begun, checked(8)).checks.running is not None
    assert ledger(begun, checked(7)).checks.running is None
    failed = ledger(begun, unchecked(7)).checks
    assert failed.running is None
    assert (failed.failures(7), failed.failures(8)) == (1, 0)
    assert ledger(begun, unchecked(7), begun, unchecked(7)).checks.failures(7) == 2


def test_the_last_finding_of_a_version() -> None:
    line = ledger(checked(1), checked(2, version=2), checked(3, health="regressed")).checks
    assert (line.found[1].health, line.found[1].number) == ("regressed", 3)
    assert set(line.found) == {1, 2}


def test_it_is_known_whether_the_last_run_was_a_check() -> None:
    begun: Made = ("checking", {"run": "r", "seed": 7, "attempt": 1, "fence": 2})
    names = {"concept": "rex", "upload": "u", "run": "r", "attempt": 1, "fence": 3, "at": "now"}
    assert not ledger().checks.last
    assert ledger(begun, checked(7)).checks.last
    assert not ledger(begun, checked(7), ("started", names)).checks.last
