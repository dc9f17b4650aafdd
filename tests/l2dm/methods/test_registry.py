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
    ours = {"gated": False, "l2dm": True, "sequential": False}
    found = {name: registry.page(name).replays for name in registry.names()}
    assert found.items() >= ours.items()
    assert [name for name in registry.names() if name in ours] == sorted(ours)
    assert registry.page("sequential").summary.startswith("Sequential fine-tuning: ")


def test_constants_are_read_with_a_type_or_without(tmp_path: Path) -> None:
    for name in ('NAME = "ewc"\nREPLAYS = True', 'NAME: Final[str] = "ewc"\nREPLAYS: bool = True'):
        (tmp_path / "ewc.py").write_text(f'"""Elastic weights.\n\nMore."""\n{name}\n')
        found = registry.read_page(tmp_path / "ewc.py", "ewc")
        assert found is not None
        assert (found.name, found.summary, found.replays) == ("ewc", "Elastic weights.", True)
    (tmp_path / "ewc.py").write_text('NAME: str\nOTHER = "x"\nfound[0] = 3\n')
    assert registry.read_page(tmp_path / "ewc.py", "ewc") is None


@pytest.mark.parametrize("line", ['NAME = "e" + "wc"', 'NAME: str = f"ewc"', "NAME = OTHER"])
def test_a_name_that_is_computed_is_refused_and_not_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / "ewc.py").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"expected NAME of .*ewc\.py written out, .* found"):
        registry.read_page(tmp_path / "ewc.py", "ewc")


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


def ours() -> list[str]:
    """Those of this project; packages that are installed here may bring others."""
    pages = {name: registry.page(name).load() for name in registry.names()}
    return [name for name, one in pages.items() if one.__name__.startswith("l2dm.methods.")]


def options_table() -> list[str]:
    """The rows of docs/methods.md: one an option."""
    rows = ((name, one) for name in ours() for one in described(registry.options(name)))
    return [
        f"| `{name}.{one.key}` | `{one.default}` | {one.expected} | {one.meaning} |"
        for name, one in rows
    ]


def test_the_docs_list_every_method_and_option() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| option | default | expected | meaning |") + 2
    listed = lines[begin : lines.index("", begin)]
    assert listed == options_table(), "\n".join(options_table())
    for name in ours():
        assert any(line.startswith(f"| `{name}` |") for line in lines), name
