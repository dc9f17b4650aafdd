"""What is due, what runs and which champions came before, read off made-up events."""

from datetime import UTC, datetime
from typing import Any

import pytest

from components.services.checks import (
    checking,
    due,
    failures,
    former_champions,
    found,
    require_cron,
    schedule,
    seed_of,
)
from components.services.records import Event, Kind
from l2dm.errors import BadSpec


def events(*given: tuple[Kind, dict[str, Any]]) -> tuple[Event, ...]:
    return tuple(Event(number, kind, facts) for number, (kind, facts) in enumerate(given, start=1))


def promotion(source: int, target: int) -> tuple[Kind, dict[str, Any]]:
    return "promotion", {"source": source, "target": target}


def rollback(source: int, target: int) -> tuple[Kind, dict[str, Any]]:
    return "rollback", {"source": source, "target": target}


def scheduled(cron: str, at: str = "2026-11-20T12:00:00+0000") -> tuple[Kind, dict[str, Any]]:
    return "scheduled", {"cron": cron, "settings": ["check.policy=roll_back"], "at": at}


def unix(day: int, hour: int, minute: int = 0) -> float:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC).timestamp()


NIGHTLY = (promotion(0, 1), scheduled("0 3 * * *"))


def test_a_check_is_due_from_its_instant_on_and_once() -> None:
    line = events(*NIGHTLY)
    assert due(line, "pets", unix(20, 23)) is None  # the schedule is younger than today's instant
    seed = due(line, "pets", unix(21, 3, 1))
    assert seed == seed_of("pets", datetime(2026, 11, 21, 3, tzinfo=UTC))
    assert due(line, "pets", unix(21, 23)) == seed  # nobody looked for hours: still the same
    done = events(*NIGHTLY, ("checked", {"seed": seed, "version": 1}))
    assert due(done, "pets", unix(21, 23)) is None
    assert due(done, "pets", unix(22, 3)) not in (None, seed)


def test_of_several_missed_nights_only_the_last_counts() -> None:
    assert due(events(*NIGHTLY), "pets", unix(27, 4)) == seed_of(
        "pets", datetime(2026, 11, 27, 3, tzinfo=UTC)
    )


def test_lines_do_not_share_seeds() -> None:
    instant = datetime(2026, 11, 21, 3, tzinfo=UTC)
    assert seed_of("pets", instant) != seed_of("cups", instant)


def test_a_line_without_clock_or_champion_is_never_due() -> None:
    assert due(events(promotion(0, 1)), "pets", unix(27, 4)) is None
    assert due(events(scheduled("0 3 * * *")), "pets", unix(27, 4)) is None
    ended = events(*NIGHTLY, scheduled(""))
    assert schedule(ended) is None
    assert due(ended, "pets", unix(27, 4)) is None


def test_times_of_other_zones_are_the_same_instant() -> None:
    late = scheduled("0 3 * * *", "2026-11-21T04:30:00+0200")  # 02:30 UTC
    assert due(events(promotion(0, 1), late), "pets", unix(21, 3, 1)) is not None


@pytest.mark.parametrize("cron", ["nightly", "0 3 * *", "61 3 * * *", "0 0 3 * * * *"])
def test_a_wrong_cron_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(BadSpec, match=r"expected five fields such as '0 3 \* \* \*'"):
        require_cron(cron)


def test_a_run_is_open_until_its_seed_is_answered() -> None:
    begun: tuple[Kind, dict[str, Any]] = (
        "checking",
        {"run": "r", "seed": 7, "attempt": 1, "fence": 2},
    )
    assert checking(events(begun)) is not None
    assert checking(events(begun, ("checked", {"seed": 8, "version": 1}))) is not None
    assert checking(events(begun, ("checked", {"seed": 7, "version": 1}))) is None
    failed = events(begun, ("unchecked", {"seed": 7}))
    assert checking(failed) is None
    assert len(failures(failed, 7)) == 1
    assert failures(failed, 8) == ()


def test_the_last_finding_of_a_version() -> None:
    line = events(
        ("checked", {"version": 1, "health": "healthy"}),
        ("checked", {"version": 2, "health": "healthy"}),
        ("checked", {"version": 1, "health": "regressed"}),
    )
    facts = found(line, 1)
    assert facts is not None
    assert facts["health"] == "regressed"
    assert found(line, 3) is None


def test_former_champions_are_those_before_and_not_those_left_behind() -> None:
    assert former_champions(events(promotion(0, 1), promotion(1, 3), promotion(3, 4)), 4) == (3, 1)
    back = events(promotion(0, 1), promotion(1, 2), rollback(2, 1), promotion(1, 5))
    assert former_champions(back, 5) == (1,)
    assert former_champions(back, 1) == ()
