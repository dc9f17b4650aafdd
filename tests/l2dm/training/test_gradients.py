"""A training whose gradient does not reach everything stops in its first steps and says where."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from l2dm.errors import NothingLearned
from l2dm.pocket.train.loop import StagePlan, train
from l2dm.training.gradients import FIRST_STEPS, GradientWatch


def steps(watch: GradientWatch, parameter: nn.Parameter, gradients: list[float | None]) -> None:
    for value in gradients:
        parameter.grad = None if value is None else torch.full_like(parameter, value)
        watch.look()


def watched() -> tuple[GradientWatch, nn.Parameter]:
    moved, parameter = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    moved.grad = torch.ones(2)
    return GradientWatch({"moved": moved, "still": parameter}), parameter


@pytest.mark.parametrize("gradients", [[0.0] * FIRST_STEPS, [None] * FIRST_STEPS])
def test_a_tensor_without_a_gradient_is_named(gradients: list[float | None]) -> None:
    watch, parameter = watched()
    with pytest.raises(NothingLearned, match=r"zero in 1 of 2: still;"):
        steps(watch, parameter, gradients)


def test_one_gradient_in_the_first_steps_is_enough() -> None:
    """A LoRA's first factor has none in its first step."""
    watch, parameter = watched()
    steps(watch, parameter, [0.0, 1e-30, 0.0])
    steps(watch, parameter, [0.0] * 5)  # nobody looks any more


@pytest.mark.parametrize("wild", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named(wild: float) -> None:
    watch, parameter = watched()
    with pytest.raises(NothingLearned, match=r"infinity in still;"):
        steps(watch, parameter, [wild])


def test_one_that_is_not_finite_later_is_named_though_the_tensor_had_a_gradient() -> None:
    watch, parameter = watched()
    with pytest.raises(NothingLearned, match=r"infinity in still;"):
        steps(watch, parameter, [1.0, float("nan")])


def test_gradients_that_cancel_are_gradients() -> None:
    watch, parameter = watched()
    parameter.grad = torch.tensor([1.0, -1.0, 0.0])
    for _ in range(FIRST_STEPS):
        watch.look()


def test_the_loop_of_the_base_stops(tmp_path: Path) -> None:
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "forgotten": nn.Linear(2, 1)})

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        value = net["used"](torch.randn((4, 2), generator=generator)).square().mean()
        return value, {}

    with pytest.raises(NothingLearned, match=r"forgotten\.weight, forgotten\.bias"):
        train("net", net, loss, StagePlan(steps=10, rate=1e-2), tmp_path, "noise")


@pytest.mark.filterwarnings("ignore")  # the compiler warns of much
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="NO C++ COMPILER HERE: torch.compile was not looked at"
)
def test_compiled_bf16_training_still_loses_gradients_on_a_cpu() -> None:
    """Why nothing here is compiled. When this fails, torch has mended it: compile may come back."""
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    torch.manual_seed(0)
    before = nn.Conv2d(8, 8, 3, padding=1)
    rest = nn.ModuleList(
        [
            Upsample2D(8, use_conv=True),
            ResnetBlock2D(in_channels=8, out_channels=8, temb_channels=None, groups=4),
        ]
    )

    def forward(x: Tensor) -> Tensor:
        up, block = rest
        shown: Tensor = block(up(before(x)), None)
        return shown

    def norm_before(call: object) -> float:
        before.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            shown = call(torch.ones(2, 8, 4, 4))  # type: ignore[operator]
        shown.float().square().mean().backward()
        assert before.weight.grad is not None
        return float(before.weight.grad.norm())

    assert norm_before(forward) > 0
    assert norm_before(torch.compile(forward)) == 0.0
