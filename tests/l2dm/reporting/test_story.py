import pytest

from l2dm.reporting.story import CONCEPTS, ROWS, ReportEntry, subject_of, tell
from tests.worlds import history


class _Release:
    def __init__(self, parent):
        self.record = type("Record", (), {"parent_version": parent})()


def _entry(version, parent, *aliases):
    return ReportEntry(version, _Release(parent), aliases)


def test_the_champion_speaks_for_the_line():
    entries = [_entry(1, 0, "previous"), _entry(2, 1, "champion")]
    assert subject_of(entries).version == 2


def test_a_challenger_of_the_champion_speaks_for_itself():
    entries = [_entry(1, 0, "champion"), _entry(2, 1, "challenger")]
    assert subject_of(entries).version == 2


def test_a_challenger_that_began_elsewhere_does_not():
    # version 3 was held when 2 was champion; then the line was rolled back to 1
    entries = [_entry(1, 0, "champion"), _entry(2, 1, "previous"), _entry(3, 2, "challenger")]
    assert subject_of(entries).version == 1
    # version 2 was held, version 3 then became champion: the old challenger is history
    entries = [_entry(1, 0), _entry(2, 1, "challenger"), _entry(3, 1, "champion")]
    assert subject_of(entries).version == 3


def test_without_a_champion_the_newest_speaks():
    assert subject_of([_entry(1, 0), _entry(2, 0, "challenger")]).version == 2
    assert subject_of([_entry(1, 0)]).version == 1
    assert subject_of([]) is None


def test_drops_have_paired_intervals(tmp_path):
    story = tell("pets", history.line(tmp_path, history.concepts(2), fade=0.1))
    first, last = story.kept
    # pictures lose 0.05, 0.15, 0.05 and 0.15: mean 0.1
    assert first.drop.before == pytest.approx((0.74, 0.78, 0.82, 0.86))
    assert first.drop.amount == pytest.approx(0.1)
    assert first.interval.mean == pytest.approx(0.1)
    assert (first.interval.low, first.interval.high) == pytest.approx((0.05, 0.15))
    assert first.relative == pytest.approx(0.1 / 0.6)
    assert (last.drop, last.interval, last.relative) == (None, None, None)
    assert (last.learned, last.now, last.ceiling) == pytest.approx((0.8, 0.8, 0.9))


def test_a_short_line_is_shown_whole(tmp_path):
    story = tell("pets", history.line(tmp_path, history.concepts(2)))
    assert story.rows == (0, 1, 2)
    assert story.columns == (0, 1)
    assert story.bounds == ""


def test_a_long_line_shows_the_latest_and_the_most_forgotten(tmp_path):
    story = tell("pets", [history.line_end(tmp_path, history.concepts(20), fade=0.01)])
    assert story.rows == (0, 15, 16, 17, 18, 19, 20)
    assert len(story.rows) == ROWS + 1
    # the earliest lost most: 0 to 5; the latest: 14 to 19
    assert story.columns == (0, 1, 2, 3, 4, 5, 14, 15, 16, 17, 18, 19)
    assert len(story.columns) == CONCEPTS
    assert "12 of 20 concepts" in story.bounds
