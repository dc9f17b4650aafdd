"""What another package declares is known in every process where it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from l2dm import installed
from l2dm.bases import family
from l2dm.files import children
from l2dm.methods import registry

POINTS = """\
[l2dm.methods]
theirs = elsewhere.inner.ewc
gone = elsewhere.gone
l2dm = elsewhere.inner.ours
renamed = elsewhere.inner.ewc

[l2dm.families]
own = elsewhere.own_family
broken = elsewhere.broken

[l2dm.base_fetchers]
gs = elsewhere.fetch:from_gs
"""
PAGE = '''\
"""Elastic weights.

More.
"""

import torch

from l2dm.methods.sequential import Sequential
from l2dm.sections import Section

NAME: str = "theirs"
REPLAYS: bool = True
METHOD = Sequential


class OPTIONS(Section):
    """How stiff."""

    stiff: float = 2.0
'''
FAMILY = """\
from dataclasses import replace

from l2dm.bases.families.stable_diffusion import FAMILY as STABLE_DIFFUSION

FAMILY = replace(STABLE_DIFFUSION, name="Own Diffusion")
"""
FILES = {
    "elsewhere-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: elsewhere\nVersion: 0.1\n",
    "elsewhere-0.1.dist-info/entry_points.txt": POINTS,
    "elsewhere/__init__.py": "",
    "elsewhere/inner/__init__.py": "raise SystemExit('imported to be listed')",
    "elsewhere/inner/ewc.py": PAGE,
    "elsewhere/inner/ours.py": 'NAME = "l2dm"\n',
    "elsewhere/own_family.py": FAMILY,
    "elsewhere/broken.py": "import nothing_of_this_name\n",
    "elsewhere/fetch.py": (
        "from l2dm.errors import BadBase\n\n\n"
        "def from_gs(base):\n    raise BadBase(f'fetched {base}')\n"
    ),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def child(code: str, site: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """What a process of ours says that knows nothing but what is installed."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = children.environment(PYTHONPATH=os.pathsep.join(paths), **more)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_method_of_another_package_is_listed_without_importing_it(site: Path) -> None:
    done = child(
        "import sys\n"
        "from l2dm.methods import registry\n"
        "page = registry.page('theirs')\n"
        "print(registry.names()[-1], page.summary, page.replays)\n"
        "print('torch' in sys.modules, 'elsewhere' in sys.modules)\n",
        site,
    )
    assert done.stdout == "theirs Elastic weights. True\nFalse False\n"
    warnings = done.stderr.splitlines()
    assert len(warnings) == 3
    assert (
        "gone = elsewhere.gone is left out: expected a module elsewhere.gone, found" in warnings[0]
    )
    assert "l2dm = elsewhere.inner.ours is left out: found method 'l2dm' a second" in warnings[1]
    assert "left out: expected a module with NAME = 'renamed', found NAME 'theirs'" in warnings[2]


def test_its_options_and_its_class_are_known_in_a_child(site: Path) -> None:
    (site / "elsewhere" / "inner" / "__init__.py").write_text("")
    done = child(
        "from l2dm.spec import override, parse, recorded\n"
        "from l2dm.training.learn import method_of\n"
        "spec = override(parse({'train': {'method': 'theirs'}}), ['theirs.stiff=3'])\n"
        "print(recorded(spec)['theirs'], type(method_of(spec)).__name__)\n",
        site,
    )
    assert done.stdout == "{'stiff': 3.0} Sequential\n"


def test_a_family_of_another_package_is_known_and_a_broken_one_ends_nothing(site: Path) -> None:
    done = child(
        "import sys\n"
        "from l2dm.bases.family import families\n"
        "print([one.name for one in families()][-1], 'torch' in sys.modules)\n",
        site,
    )
    assert done.stdout == "Own Diffusion False\n"
    assert done.stderr == (
        "installed package elsewhere 0.1, l2dm.families: broken = elsewhere.broken is left out: "
        "elsewhere.broken needs a module nothing_of_this_name, which is not installed; mend that "
        "package, or uninstall it\n"
    )


def test_whatever_a_package_declares_or_does_ends_nothing_else(site: Path) -> None:
    """Values that name no module, a page that is a pipe, modules that end when imported."""
    points = site / "elsewhere-0.1.dist-info" / "entry_points.txt"
    points.write_text(
        "[l2dm.methods]\nempty =\nout = ../../x\npipe = piped\nends = ends\n"
        "[l2dm.families]\nempty =\nends = ends\nraises = raises\n"
    )
    (site / "ends.py").write_text('NAME = "ends"\nraise SystemExit(7)\n')
    (site / "raises.py").write_text('raise RuntimeError("no device")\n')
    os.mkfifo(site / "piped.py")
    done = child(
        "from l2dm.bases.family import families\n"
        "from l2dm.errors import BadSpec, BrokenPackage, is_of_the_house\n"
        "from l2dm.methods import registry\n"
        "from l2dm.spec import Spec, options_of, override\n"
        "from pipelines.commands.settings import spec_keys\n"
        "print(registry.names()[-1], len(families()) > 0, len(list(spec_keys())) > 20)\n"
        "for setting in ('train.stebs=3', 'train.method=ends'):\n"
        "    try:\n        options_of(override(Spec(), [setting]))\n"
        "    except (BadSpec, BrokenPackage) as error:\n        print(error)\n"
        "print(is_of_the_house('BrokenPackage'))\n",
        site,
    )
    listed, misspelled, broken, house = done.stdout.splitlines()
    assert listed == "ends True True" and house == "True"
    assert misspelled.endswith("nearest known key: train.steps")
    assert "module ends of an installed package, found that it cannot be imported" in broken
    assert "SystemExit: 7" in broken
    for name in ("empty", "out", "pipe"):
        assert f"l2dm.methods: {name} = " in done.stderr
    for name in ("empty", "ends", "raises"):
        assert f"l2dm.families: {name} = " in done.stderr


WRONG = {
    "[l2dm.methods]\nfoo\n[l2dm.families]\nfoo\n": "expected groups of NAME = MODULE",
    "[l2dm.methods]\nx = a b c\n": "expected the name of a module, found 'a b c'",
    "[l2dm.methods]\nx =\n": "expected the name of a module, found ''",
    "[l2dm.methods]\nx = ..a\n": "expected the name of a module, found '..a'",
    "[l2dm.methods]\nx = other.page\n": "expected a module other.page, found none",
    "[l2dm.methods]\nx = torn\n": "expected Python in the source of torn, found something else",
    "[l2dm.methods]\nx = void\n": "expected a module with NAME = 'x', found none",
    "[l2dm.methods]\nx = made\n": "expected NAME of ",
    "[l2dm.families]\nx = other\n": "expected a module other, found none",
    "[l2dm.families]\nx = torn\n": "expected Python in the source of torn, found something else",
    "[l2dm.families]\nx = void\n": "expected a module with FAMILY, found None",
    "[l2dm.families]\nx = raises\n": "raises ended with RuntimeError when it was looked at",
}


@pytest.mark.parametrize("points", WRONG)
def test_what_a_package_declares_wrongly_is_one_sentence_of_ours(
    site: Path, points: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It names package, group and entry, and holds no words of Python's."""
    (site / "elsewhere-0.1.dist-info" / "entry_points.txt").write_text(points)
    (site / "torn.py").write_text("def (\x00")
    (site / "void.py").write_text("")
    (site / "made.py").write_text("NAME = 'x' * 2\n")
    (site / "raises.py").write_text("raise RuntimeError('Traceback of its own')\n")
    monkeypatch.syspath_prepend(str(site))
    for cached in (installed._ours, installed.entry_points, registry._found, family._found):
        cached.cache_clear()
    try:
        assert "l2dm" in registry.names() and family.families()
    finally:
        for cached in (installed._ours, installed.entry_points, registry._found, family._found):
            cached.cache_clear()
    (said,) = (one for one in caplog.messages if "elsewhere" in one)
    assert said.startswith("installed package elsewhere 0.1") and WRONG[points] in said
    assert said.endswith("; mend that package, or uninstall it")
    if "x = " in points:
        assert f", {points.partition(']')[0][1:]}: x = " in said
    assert not any(word in said for word in ("Traceback", "invalid syntax", "No module named"))


OPEN_GS = (
    "from l2dm.errors import BadBase\n"
    "from l2dm.serve import open_release\n"
    "try:\n    open_release('nowhere', 'gs://bucket/base')\n"
    "except BadBase as error:\n    print(error)\n"
)


def test_a_fetcher_of_another_package_is_asked_for_its_scheme(site: Path) -> None:
    done = child(OPEN_GS, site)
    assert done.stdout == "fetched gs://bucket/base\n"


def test_a_fetcher_that_is_not_there_is_named(site: Path) -> None:
    points = site / "elsewhere-0.1.dist-info" / "entry_points.txt"
    points.write_text(POINTS.replace("fetch:from_gs", "fetch:from_nowhere"))
    done = child(OPEN_GS, site)
    assert "gs = elsewhere.fetch:from_nowhere is left out: " in done.stdout
    assert "expected from_nowhere in elsewhere.fetch, found none; mend that" in done.stdout


def test_entry_points_are_told_once_each_by_name(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = site / "copy" / "elsewhere-0.0.dist-info"
    copy.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (copy / name).write_text((site / "elsewhere-0.1.dist-info" / name).read_text())
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(copy.parent))
    found = installed.entry_points.__wrapped__("l2dm.methods")
    assert [one.name for one in found] == ["gone", "l2dm", "renamed", "theirs"]
    assert installed.entry_points.__wrapped__("l2dm.nothing") == ()
