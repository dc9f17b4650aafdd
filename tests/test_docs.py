"""The documentation: its program runs, its links lead somewhere, it names only files that exist."""

import re
from pathlib import Path

import pytest

from l2dm import spec as specs
from pipelines.commands.cli import PAGES as COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = (
    "train.steps=2", "train.batch=2", "prior.count=2", "sampling.steps=1", "evaluate.pictures=2",
    "evaluate.distractors=5", "evaluate.resamples=20",
)  # fmt: skip


@pytest.mark.slow
def test_the_library_from_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S
    ):
        exec(compile(block, "docs/python.md", "exec"), names)
        if "spec" in names:  # what it does with the defaults, in less time
            names["spec"] = specs.override(names["spec"], SMALL)
    assert len(list(Path("work").glob("rex-*.png"))) == 2
    assert names["check"].record.health == "healthy"
    assert "champion: version 1" in Path("work/report.html").read_text()
    assert Path("work/files/README.md").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_page_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not heading or heading in _anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """`l2dm/spec.py` from the root, `story.py` not: a path has a folder that is ours."""
    found = re.findall(
        r"`((?:l2dm|components|pipelines|tests|infra|benchmarks)/[\w/.-]+)`", page.read_text()
    )
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_every_command_has_a_row():
    text = (ROOT / "docs/commands.md").read_text()
    assert [name for name, _ in COMMANDS if f"| `l2dm {name}" not in text] == []


def test_the_readme_is_short_and_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert text.index("make demo") < text.index("make test") < text.index("l2dm submit")


def _anchors(page):
    """Headings as links name them: lower case, no punctuation, blanks as hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
