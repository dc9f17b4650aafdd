"""The checks' section: newest first, everything escaped, a chart from the second check on."""

from l2dm.reporting.timeline import PastCheck, checks


def past(at: str, health: str, score: float, reason: str = "as it was") -> PastCheck:
    return PastCheck(
        at, 3, health, "model" if health == "regressed" else "", {"rex": score}, (reason,)
    )


def test_nothing_before_the_first_check() -> None:
    assert checks([]) == ""


def test_the_newest_comes_first_and_what_was_found_is_text() -> None:
    page = checks(
        [past("monday", "healthy", 0.6), past("tuesday", "regressed", 0.1, "<b>lost</b>")]
    )
    assert page.index("tuesday") < page.index("monday")
    assert "✕ regressed" in page and "✓ healthy" in page
    assert "&lt;b&gt;lost" in page and "<b>lost" not in page


def test_a_line_is_drawn_from_two_points_on_without_smoothing() -> None:
    assert "<svg" not in checks([past("monday", "healthy", 0.6)])
    page = checks([past("monday", "healthy", 0.6), past("tuesday", "healthy", 0.3)])
    assert "check 2</text>" in page
    # the highest value is the top of the chart, half of it lies halfway
    assert 'points="40.0,8.0 330.0,69.0"' in page
