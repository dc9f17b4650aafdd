"""`l2dm generate`: several prompts at once, names that replace nothing, what is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from components.services.line.records import Records
from components.services.tracking.registry import FolderRegistry, VersionFacts
from l2dm.errors import BadInput, BadPrompt
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from pipelines.commands.versions import picture_files
from tests.worlds.handmade import make_release

PROMPT = "a photo of a <toy> dog"
Generate = Callable[..., Result]


@pytest.fixture(scope="module")
def registered(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generate")
    release = make_release(root / "release", str(tiny_base), "prompt")
    facts = VersionFacts("t0002", "toy2", "red cup", 1, "digest", True)
    registry = FolderRegistry(root / "registry")
    registry.register("b", release, facts)
    registry.set_alias("b", "champion", 1)
    Records(Target(root / "home", "b", "pocket").home.store, "b").append(
        "promotion", source=0, target=1
    )
    return root


@pytest.fixture
def generate(
    registered: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generate:
    registry = FolderRegistry(registered / "registry")
    monkeypatch.setattr(Target, "registry", lambda target: registry)

    def run(*words: str) -> Result:
        places = ("--home", str(registered / "home"), "--base", str(tiny_base), "--line", "b")
        short = ("--out", str(tmp_path / "out"), "--set", "sampling.steps=1")
        return CliRunner().invoke(app, ["generate", *places, *short, *words])

    return run


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_nothing_is_replaced_and_a_picture_says_how_it_was_made(
    generate: Generate, tmp_path: Path
) -> None:
    first = generate(PROMPT, "-n", "2", "--seed", "5")
    assert first.exit_code == 0, first.output
    names = first.stdout.splitlines()
    before = {name: Path(name).read_bytes() for name in names}
    assert len(names) == 2
    again, other = generate(PROMPT, "-n", "2", "--seed", "5"), generate("a dog", "--seed", "5")
    assert again.stdout == first.stdout
    assert not {*other.stdout.splitlines()} & {*names}
    assert {name: Path(name).read_bytes() for name in names} == before
    assert len(list((tmp_path / "out").iterdir())) == 6
    with Image.open(names[1]) as picture:
        text = picture.info
    own = json.loads(text["l2dm"])
    assert (own["prompt"], own["seed"], own["line"], own["version"]) == (PROMPT, 6, "b", 1)
    assert text["parameters"].startswith(f"{PROMPT}\nSteps: 1, Sampler: DPM++ 2M, CFG scale: 2, ")
    assert "Seed: 6, Size: 16x16, " in text["parameters"]
    assert "Model: b version 1" in text["parameters"]


def test_several_prompts_and_a_file_of_them_are_drawn_in_one_go(
    generate: Generate, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("# mine\n\na cup\r\na <toy2> red cup, трава 🐕\n")
    done = generate(PROMPT, "a dog", "--prompts", str(tmp_path / "prompts.txt"), "-n", "2",
                    "--batch", "3", "--negative", "blue", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    prompts = [PROMPT, "a dog", "a cup", "a <toy2> red cup, трава 🐕"]
    assert [(one["prompt"], one["seed"]) for one in told["pictures"]] == [
        (prompt, seed) for prompt in prompts for seed in (0, 1)
    ]
    assert len({*told["files"]}) == 8
    with Image.open(told["files"][-1]) as picture:
        assert prompts[-1] in picture.info["parameters"]
        assert "\nNegative prompt: blue\n" in picture.info["parameters"]


def test_a_strength_of_nought_is_the_base(generate: Generate) -> None:
    plain = generate("a photo of a dog", "-n", "1").stdout.strip()
    nought = generate(PROMPT, "-n", "1", "--scale", "toy=0").stdout.strip()
    some = generate(PROMPT, "-n", "1", "--scale", "toy=0.7").stdout.strip()
    whole = generate(PROMPT, "-n", "1").stdout.strip()
    assert plain != nought
    assert pixels(plain) == pixels(nought)
    assert len({pixels(plain), pixels(some), pixels(whole)}) == 3


def test_a_prompt_that_seems_to_mean_more_is_told_beside_the_pictures(generate: Generate) -> None:
    done = generate("a photo of a toy dog on the <Toy2>", "-n", "1", "--json")
    assert done.exit_code == 0
    assert "note: '<Toy2>' in the prompt is read as <toy2>" in done.stderr
    assert "note: 'toy' in the prompt is read as a plain word" in done.stderr
    assert len(json.loads(done.stdout)["notes"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a (<toy>:1.3) dog",), "weights of words are not read here"),
        (("a dog", "--negative", "<Nobody>"), "names <Nobody>, which this line has not learned"),
        ((PROMPT, "--scale", "toy2=0.5"), "strength of <toy2>: expected a prompt that names it"),
        ((PROMPT, "--scale", "rex=0.5"), "strength of 'rex': expected a concept"),
        ((PROMPT, "--scale", "toy=9"), "from 0 (not at all) to 4"),
        ((PROMPT, "-n", "1000000000000"), "less than or equal to 10000"),
        ((PROMPT, "a dog", "-n", "9999"), "at most 10,000 pictures at once, found 19,998"),
        ((PROMPT, "--seed", str(2**63)), "less than or equal to 9223372036854775807"),
        ((PROMPT, "--seed", str(2**63 - 2)), "expected seeds up to 9223372036854775807"),
        ((PROMPT, "--set", "sampling.steps=100000"), "sampling.steps"),
        ((PROMPT, "--batch", "100000"), "less than or equal to 1024"),
        ((PROMPT, "--version", "²"), "found '²'"),
        ((PROMPT, "--version", "9" * 5000), "expected a version number"),
        ((PROMPT, "--name", "../{seed}"), "expected a file name without folders"),
        ((PROMPT, "--name", "{line.__class__}"), "expected a file name without folders"),
        ((PROMPT, "--name", "{seed:0999999999d}"), "expected a file name without folders"),
        ((PROMPT, "--name", "{line!r}{seed"), "expected a file name without folders"),
        ((PROMPT, "--name", "same"), "expected another name for each of 4 pictures"),
        ((), "expected a prompt, found none"),
        (("--prompts", "/nowhere"), "expected a text file of prompts, found none at /nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(
    generate: Generate, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = generate(*words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_pattern_names_files(generate: Generate) -> None:
    done = generate(PROMPT, "a dog", "-n", "1", "--name", "{number:03d} {prompt} v{version}.png")
    names = [Path(line).name for line in done.stdout.splitlines()]
    assert names == ["001 a-photo-of-a-toy-dog v1.png", "002 a-dog v1.png"]


def test_a_file_of_prompts_is_a_small_text_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    for data, said in ((b"\xff\xfe", "expected UTF-8"), (b"#\n \n", "found none"),
                       (b"a" * 1_000_001, "at most 1,000,000 bytes")):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(BadPrompt, match=said):
            picture_files.read_prompts(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadPrompt, match="found none at"):
        picture_files.read_prompts(tmp_path / "pipe")


def test_a_file_that_holds_something_else_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    written = [picture_files.write_new(path, data) for data in (b"1", b"2", b"1", b"2", b"3")]
    assert [one.name for one in written] == [
        "one.png", "one-2.png", "one.png", "one-2.png", "one-3.png"
    ]  # fmt: skip
    assert [one.read_bytes() for one in written] == [b"1", b"2", b"1", b"2", b"3"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_without_links_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    for data in (b"1", b"2", b"1"):
        assert picture_files.write_new(tmp_path / "one.png", data).read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one-2.png", "one.png"]


def test_a_name_is_a_name_on_every_file_system() -> None:
    values = {"line": "b", "version": 1, "prompt": "../../etc <x>"}
    values |= {"digest": "d", "seed": 1, "number": 1}
    assert picture_files.name("{prompt}", values) == "etc-x.png"
    for pattern in ("", ".x", "a:b", "a\nb", "x" * 300, "{}", "{0}", "{seed:,}", "{line:9d}"):
        with pytest.raises(BadInput, match="expected a file name without folders"):
            picture_files.require_pattern(pattern)
