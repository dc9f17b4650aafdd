"""Hostile bases: each is refused in one sentence, soon, in little memory, and runs no code."""

import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base
from l2dm.bases.sampling import Shot, draw
from l2dm.errors import BadBase
from l2dm.spec import SamplingSpec
from tests.worlds import hostile_bases

SECONDS, MEMORY = 10, 1 << 20  # kilobytes, as getrusage counts
PICTURE = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)


def use(folder: Path) -> None:
    """Everything that is ever done with a base."""
    model = load_base(str(folder))
    encoders = load_encoders(str(folder))
    draw(model, [Shot("a dog", 1)], SamplingSpec())
    encoders.image(PICTURE)
    encoders.identity(PICTURE)
    encoders.text(["a dog"])


@contextmanager
def bounded() -> Iterator[None]:
    """At most ten seconds and a gigabyte."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, late)
    signal.alarm(4 * SECONDS)  # a hang; what is slow on a busy machine is measured below
    began = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def run(good: Path, root: Path, seeds: range, make: Callable[[Path, Path, int], str]) -> list[str]:
    """What is wrong with the bases of these seeds that were used all the same."""
    accepted = []
    for seed in seeds:
        folder = root / str(seed)
        what = make(good, folder, seed)
        try:
            with bounded():
                use(folder)
            accepted.append(f"{seed}: {what}")
        except BadBase as error:
            assert len(str(error)) < 4000, what
        except Exception as error:
            raise AssertionError(f"{seed}, {what}: {type(error).__name__}: {error}") from error
        assert not list(folder.rglob(hostile_bases.LEFT)), what
    return accepted


@pytest.mark.parametrize("part", range(6))
def test_hostile_bases_are_refused(tiny_base: Path, tmp_path: Path, part: int) -> None:
    seeds = range(part * 22, part * 22 + 22)
    assert run(tiny_base, tmp_path, seeds, hostile_bases.make) == []


def test_odd_bases_are_refused_or_work(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path, range(20), hostile_bases.make_odd)


@pytest.mark.slow
def test_many_hostile_bases_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    assert run(tiny_base, tmp_path, range(1000, 2000), hostile_bases.make) == []


@pytest.mark.slow
def test_many_odd_bases_are_refused_or_work(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path, range(1000, 1200), hostile_bases.make_odd)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("unet/config.json", "norm_eps", -1),
        ("unet/config.json", "freq_shift", None),
        ("unet/config.json", "mid_block_scale_factor", "x"),
        ("vae/config.json", "norm_num_groups", -1),
        ("identity/config.json", "hidden_sizes", 1_000_000),
        ("tokenizer/tokenizer_config.json", "pad_token", None),
        ("scheduler/scheduler_config.json", "solver_order", 0),
        ("clip/config.json", "text_config", "x"),
    ],
)
def test_nonsense_is_told_when_a_base_is_loaded_and_not_while_it_draws(
    tiny_base: Path, tmp_path: Path, file: str, key: str, value: object
) -> None:
    copy = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    hostile_bases.change(copy / file, **{key: value})
    with pytest.raises(BadBase, match=r"base model .*base: "):
        load_base(str(copy))
        load_encoders(str(copy))
