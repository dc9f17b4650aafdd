"""The judge: which nouns a picture shows, how many, in which colours, and in which order.

It scores pictures of the pocket world; no method is ever trained on what it says.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from l2dm.pocket.world.scenes import COLOURS, NOUNS

NOTHING = len(NOUNS)
HEADS = {
    "noun_1": len(NOUNS) + 1,
    "colour_1": len(COLOURS),
    "noun_2": len(NOUNS) + 1,
    "colour_2": len(COLOURS),
}


@dataclass(frozen=True)
class Sighting:
    """One thing the judge sees. confidence: probability of the noun, in [0, 1]."""

    noun: str
    colour: str
    confidence: float


@dataclass(frozen=True)
class Judgement:
    """What is in a picture, from left to right; empty, one thing or two."""

    things: tuple[Sighting, ...]

    @property
    def nouns(self) -> tuple[str, ...]:
        """The nouns from left to right."""
        return tuple(thing.noun for thing in self.things)

    def colour_of(self, noun: str) -> str | None:
        """The colour of the leftmost thing with this noun, None when there is none."""
        return next((thing.colour for thing in self.things if thing.noun == noun), None)


class Judge(nn.Module):
    """A small convolutional net; its last map is flattened, so that left and right survive."""

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        before = 3
        for width in self.widths:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        self.body = nn.Sequential(*layers)  # (B, 3, 64, 64) -> (B, 128, 4, 4)
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(before * 16, 256), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, size) for name, size in HEADS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits by head, (B, classes), for pictures (B, 3, 64, 64) in [-1, 1]."""
        features = self.neck(self.body(pictures))
        return {name: head(features) for name, head in self.heads.items()}


def save_judge(judge_model: Judge, folder: Path) -> None:
    """Write config.json and fp16 safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"widths": judge_model.widths, "nouns": NOUNS, "colours": COLOURS}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in judge_model.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")


def load_judge(folder: Path) -> Judge:
    """The judge that ships in `folder`, in fp32 and evaluation mode.

    Raises ValueError when it was trained on another vocabulary than this world's.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if tuple(config["nouns"]) != NOUNS or tuple(config["colours"]) != COLOURS:
        message = (
            f"The judge in {folder} knows other nouns or colours than this world; "
            "rebuild it with `python -m l2dm.pocket.make --stage judge`."
        )
        raise ValueError(message)
    judge_model = Judge(config["widths"])
    judge_model.load_state_dict(load_file(folder / "model.safetensors"))
    return judge_model.float().eval()


@torch.no_grad()
def judge(judge_model: Judge, pictures: Tensor, batch: int = 250) -> list[Judgement]:
    """A verdict for each picture; pictures: (B, 3, 64, 64) in [-1, 1]."""
    verdicts: list[Judgement] = []
    for part in torch.split(pictures, batch):
        logits = judge_model(part.float())
        nouns = [logits[name].softmax(-1).max(-1) for name in ("noun_1", "noun_2")]
        colours = [logits[name].argmax(-1) for name in ("colour_1", "colour_2")]
        for row in range(len(part)):
            slots = zip(nouns, colours, strict=True)
            verdicts.append(
                Judgement(
                    tuple(
                        Sighting(
                            NOUNS[int(best.indices[row])],
                            COLOURS[int(colour[row])],
                            float(best.values[row]),
                        )
                        for best, colour in slots
                        if int(best.indices[row]) != NOTHING
                    )
                )
            )
    return verdicts
