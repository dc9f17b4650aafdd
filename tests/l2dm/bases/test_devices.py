"""One process on a GPU: every step, on one that is not there (tests/worlds/pretended.py).

What is written must be what the CPU writes, and a tensor that was left behind is refused. What
`tests/worlds/pretended.py` cannot see (kernels, rounding, memory) is looked at by the test marked
`gpu`: `python -m pytest -m gpu` on a machine that has one.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import devices, sampling
from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base
from l2dm.export import verify
from l2dm.export import write as export
from l2dm.files import manifest
from l2dm.releases import painter as painting
from l2dm.replay import class_pictures
from tests.worlds.handmade import make_release
from tests.worlds.pretended import GPU, Mixed, gpu
from tests.worlds.six_steps import REX, SPEC, TOM, Run, upload

DOORS = ("task", "prior", "memory", "adapter", "scores", "release")
LINES = {
    "l2dm": ["train.method=l2dm"],
    "l2dm, spectral": ["train.method=l2dm", "l2dm.adapter=spectral"],
    "sequential": ["train.method=sequential"],
    "gated by span": ["train.method=gated", "gated.gate=span"],
    "gated by prompt": ["train.method=gated", "gated.gate=prompt"],
}


@dataclass(frozen=True)
class Line:
    """Two uploads, and the line that learns them on the device of the moment."""

    root: Path
    base: Path

    def learn(self, name: str, settings: list[str]) -> tuple[Run, Run]:
        spec, at = specs.override(SPEC, settings), self.root / name
        parent = steps.empty_release(at / "empty", "pets", str(self.base)).folder
        first = Run(at / "1", self.base, self.inbox / "rex", parent, 1, spec)
        return first, Run(at / "2", self.base, self.inbox / "tom", first.release.folder, 2, spec)

    @property
    def inbox(self) -> Path:
        return self.root / "inbox" / "pets"


@pytest.fixture(scope="module")
def line(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("line")
    for number, concept in enumerate((REX, TOM)):
        upload(root, concept, number)
    return Line(root, tiny_base)


@pytest.fixture(scope="module")
def learned(line: Line) -> Run:
    """On the CPU."""
    return line.learn("learned", [])[1]


def test_one_process_takes_the_gpu_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.accelerator() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.accelerator() == torch.device("cuda")


def test_float32_on_a_gpu_is_float32() -> None:
    flags = torch.backends.cudnn
    with gpu():
        flags.allow_tf32, flags.deterministic = True, False
        assert devices.prepared(torch.device("cpu")) == torch.device("cpu")
        assert flags.allow_tf32
        assert devices.prepared() == torch.device("cuda")
        assert (flags.allow_tf32, flags.deterministic) == (False, True)


def test_what_is_pretended_refuses_what_a_gpu_refuses() -> None:
    with gpu():
        here = torch.ones(3, 4)
        there, layer = here.to("cuda"), torch.nn.Linear(4, 4).to("cuda")
        assert (here.device.type, there.device, layer.weight.device) == ("cpu", GPU, GPU)
        assert (there @ there.T + 1).device == GPU
        assert there.double().cpu().device.type == there.new_zeros(2).cpu().device.type == "cpu"
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == GPU
        refused: list[Callable[[], object]] = [
            lambda: layer(here),
            lambda: here + there,
            lambda: here * there.sum(),
            lambda: torch.cat([here, there]),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: torch.save({"deep": [there]}, "/dev/null"),
            lambda: torch.randn(3, generator=torch.Generator(), device="cuda"),
            lambda: there.uniform_(generator=torch.Generator()),
        ]
        for wrong in refused:
            with pytest.raises(Mixed):
                wrong()
        allowed = [there * torch.tensor(2.0), there[torch.tensor([0])], there.copy_(here)]
        assert {one.device for one in allowed} == {GPU}


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_a_line_learned_on_a_gpu_is_the_line(line: Line, name: str) -> None:
    expected = line.learn(f"{name} on the CPU", LINES[name])
    with gpu() as ran:
        found = line.learn(f"{name} on the GPU", LINES[name])
    assert set(ran.networks) == {"gpu"}
    for door in DOORS:
        digests = [[getattr(run, door).digest for run in runs] for runs in (expected, found)]
        assert digests[0] == digests[1], door


def test_what_is_drawn_in_shards_is_gathered(learned: Run, tmp_path: Path) -> None:
    task, home, context = learned.home / "task", learned.home, learned.context
    with gpu() as ran:
        part = steps.draw_memory(task, learned.parent, tmp_path / "m1", context, shard="1/1")
        memory = steps.score_memory(
            task, learned.parent, tmp_path / "memory", context, drawn=[part.folder]
        )
        given = (task, learned.parent, home / "prior")
        part = steps.draw_evaluation(
            *given, home / "adapter", tmp_path / "e1", context, shard="1/1"
        )
        scores = steps.evaluate(
            *given, home / "memory", home / "adapter", tmp_path / "scores", context,
            drawn=[part.folder],
        )  # fmt: skip
    assert set(ran.networks) == {"gpu"}
    assert (memory.digest, scores.digest) == (learned.memory.digest, learned.scores.digest)


def test_a_release_is_checked_and_painted_with(learned: Run, tmp_path: Path) -> None:
    release, context = learned.release.folder, learned.context

    def look(out: Path) -> tuple[object, ...]:
        check = steps.check(release, out, context, seed=999).record
        row = steps.evaluate_release(release, context, seed=999)
        painter = painting.open_release(release, context.base)
        picture = painter.paint("a photo of a <tom> cat", [3], SPEC.sampling)
        return check, row, picture.tolist()

    expected = look(tmp_path / "cpu")
    with gpu() as ran:
        assert look(tmp_path / "gpu") == expected
    assert set(ran.networks) == {"gpu"}


def test_encoders_of_a_gpu_give_features_on_the_cpu(tiny_base: Path) -> None:
    pictures = torch.arange(3 * 3 * 20 * 20).reshape(3, 3, 20, 20).to(torch.uint8)

    def features() -> list[torch.Tensor]:
        encoders = load_encoders(str(tiny_base))
        foreign = encoders.distractors(2), encoders.identity(pictures)
        return [encoders.image(pictures), encoders.text(["a dog"]), *foreign]

    expected = features()
    with gpu() as ran:
        found = features()
        assert {one.device.type for one in found} == {"cpu"}
    assert set(ran.networks) == {"gpu"}
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


SAMPLERS = ("PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler")


@pytest.mark.parametrize("kind", SAMPLERS)
def test_any_sampler_draws_where_the_model_is(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    config = json.loads((tiny_base / "scheduler" / "scheduler_config.json").read_text())
    kept = {name: config[name] for name in ("beta_schedule", "beta_start", "beta_end")}
    settings = {"_class_name": kind, "clip_sample": False, "skip_prk_steps": True} | kept
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    shots = [sampling.Shot("a photo of a dog", seed) for seed in (1, 2, 3)]
    spec = specs.SamplingSpec(batch=2)
    expected = sampling.draw(load_base(str(base)), shots, spec)
    with gpu() as ran:
        drawn = sampling.draw(load_base(str(base)), shots, spec)
    assert set(ran.networks) == {"gpu"}
    assert torch.equal(drawn, expected)


def test_class_pictures_are_cached_for_any_device(tiny_base: Path, tmp_path: Path) -> None:
    with gpu():
        first = class_pictures.generate(
            load_base(str(tiny_base)), "dog", 3, SPEC.sampling, seed=1, cache=tmp_path
        )
    again = class_pictures.generate(
        load_base(str(tiny_base)), "dog", 3, SPEC.sampling, seed=1, cache=tmp_path,
        on_progress=lambda done, total: pytest.fail("drawn again"),
    )  # fmt: skip
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.pictures, again.pictures)


@pytest.mark.parametrize("kind", ["lowrank", "spectral", "span"])
def test_an_export_is_the_same_from_a_machine_with_a_gpu(
    tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    release = make_release(tmp_path / "release", str(tiny_base), kind)
    expected = export.export(release, str(tiny_base), tmp_path / "cpu")
    with gpu() as ran:
        found = export.export(release, str(tiny_base), tmp_path / "gpu")
    assert set(ran.networks) == {"cpu"}
    for one, other in zip(found, expected, strict=True):
        assert one.name == other.name
        if one.suffix != ".safetensors":
            assert one.read_bytes() == other.read_bytes()
            continue
        mine, theirs = load_file(one), load_file(other)  # headers are in no order
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_exported_pipeline_draws_on_a_gpu(tiny_base: Path, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", str(tiny_base), "span")
    export.export(release, str(tiny_base), tmp_path / "out")
    concepts = manifest.read(release / "adapter", doors.Adapter).record.concepts
    written = verify.Written(tmp_path / "out", "gated", "b", concepts)

    def draw(device: str) -> torch.Tensor:
        pipe = verify.open_export(written, tiny_base).to(device)
        pipe.set_progress_bar_config(disable=True)
        generator, prompt = torch.Generator().manual_seed(1), "a photo of a <toy> dog"
        images = pipe(prompt, num_inference_steps=2, generator=generator, output_type="pt").images
        return images.cpu()

    expected = draw("cpu")
    with gpu() as ran:
        assert torch.equal(draw("cuda"), expected)
    assert set(ran.networks) == {"gpu"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_real_gpu_draws_the_same_twice_and_nearly_what_the_cpu_draws(line: Line) -> None:
    one, other = (line.learn(f"really, {number}", [])[1] for number in (1, 2))
    assert one.prior.digest == other.prior.digest
    assert one.task.digest == other.task.digest
    learned = [load_file(run.adapter.path("adapter.safetensors")) for run in (one, other)]
    assert learned[0].keys() == learned[1].keys()
    for name, tensor in learned[0].items():  # its gradients may be added in any order
        assert torch.allclose(tensor, learned[1][name], atol=1e-3), name
    shots = [sampling.Shot("a photo of a dog", seed) for seed in (1, 2)]
    drawn = []
    for device in (None, None, torch.device("cpu")):
        model = load_base(str(line.base), device=device)
        assert model.device.type == (device or torch.device("cuda")).type
        drawn.append(sampling.draw(model, shots, SPEC.sampling))
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0].int() - drawn[2].int()).abs().max() <= 2  # of 255
