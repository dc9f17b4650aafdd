"""Which methods there are: read off the pages, and what registers itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from l2dm.methods import registry
from l2dm.sections import Section, described

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


def page(name: str, **more: object) -> SimpleNamespace:
    parts = {"NAME": name, "OPTIONS": Section, "METHOD": object, "__doc__": "A page.\n\nMore."}
    return SimpleNamespace(**parts | more)


def test_pages_are_found_by_their_own_names_with_summary_and_replay() -> None:
    assert registry.names() == ("gated", "l2dm", "sequential")
    assert {name: registry.page(name).replays for name in registry.names()} == {
        "gated": False, "l2dm": True, "sequential": False
    }  # fmt: skip
    assert registry.page("sequential").summary.startswith("Sequential fine-tuning: ")


def test_a_page_that_lives_elsewhere_is_registered_once_and_forgotten() -> None:
    registry.register(page("elsewhere", REPLAYS=True))
    try:
        found = registry.page("elsewhere")
        assert (found.summary, found.replays) == ("A page.", True)
        assert registry.names()[-1] == "elsewhere"
        assert registry.options("elsewhere") is Section
        with pytest.raises(ValueError, match="expected a new method, found 'elsewhere' a second"):
            registry.register(page("elsewhere"))
    finally:
        registry.unregister("elsewhere")
    assert "elsewhere" not in registry.names()
    with pytest.raises(ValueError, match="found 'l2dm' a second time"):
        registry.register(page("l2dm"))


def test_a_page_without_its_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on a method's page, found no \['METHOD'\]"):
        registry.register(SimpleNamespace(NAME="x", OPTIONS=Section))


def options_table() -> list[str]:
    """The rows of docs/methods.md: one an option."""
    rows = ((name, one) for name in registry.names() for one in described(registry.options(name)))
    return [
        f"| `{name}.{one.key}` | `{one.default}` | {one.expected} | {one.meaning} |"
        for name, one in rows
    ]


def test_the_docs_list_every_method_and_option() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| option | default | expected | meaning |") + 2
    listed = lines[begin : lines.index("", begin)]
    assert listed == options_table(), "\n".join(options_table())
    for name in registry.names():
        assert any(line.startswith(f"| `{name}` |") for line in lines), name
