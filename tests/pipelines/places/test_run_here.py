"""What is told of a run whose step wrote no error."""

from pathlib import Path

from pipelines.places.run_here import RunFailed

LOG = """17:07:03.767 - INFO - Running pipeline: 'learn-concept'
--------------------------------------------------------------------------------
17:07:03.804 - INFO - Streamed logs:

l2dm|{"step": "train", "text": "begins", "done": 0, "total": 0}
python3: error while loading shared libraries: libpython3.11.so.1.0
l2dm|{"step": "train", "text": "loss", "done": 1, "total": 9}

17:07:06.506 - ERROR - Task 'train' finished with status FAILURE
--------------------------------------------------------------------------------
"""


def test_a_step_without_an_error_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(LOG)
    assert (
        "its process was ended from outside, its last words: python3: error while loading shared "
        "libraries: libpython3.11.so.1.0 (log:"
    ) in str(RunFailed(None, log))


def test_a_step_that_said_nothing_at_all_is_told_without(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("17:07:06.506 - ERROR - Task 'train' finished with status FAILURE\n---\n")
    for where in (log, tmp_path / "none.txt"):
        assert "ended from outside (log:" in str(RunFailed(None, where))
