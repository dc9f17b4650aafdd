"""Make the pocket base model from nothing: `python -m l2dm.pocket.make`.

Kill it and start it again at will.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from l2dm.pocket import WEIGHTS
from l2dm.pocket.measure.table import write_table
from l2dm.pocket.train import export
from l2dm.pocket.train.clip import text_half, train_clip
from l2dm.pocket.train.identity import train_identity
from l2dm.pocket.train.judge import train_judge
from l2dm.pocket.train.loop import StagePlan
from l2dm.pocket.train.tokenizer import build_tokenizer
from l2dm.pocket.train.unet import PLAN, PLAN_MORE, build, scenes_of, train_unet
from l2dm.pocket.train.vae import refine_decoder, train_vae
from l2dm.pocket.world.render_cache import Renders, rendered

log = logging.getLogger(__name__)

TRAINING_SCENES, PAIR_SCENES, HELD_OUT_SCENES = 64_000, 64_000, 4_000


@dataclass(frozen=True)
class Bench:
    """Where one making happens."""

    work: Path
    weights: Path
    docs: Path
    device: torch.device

    def training(self) -> Renders:
        """The scenes that everything is trained on."""
        return rendered(self.work, "training", TRAINING_SCENES)

    def pairs(self) -> Renders:
        """More scenes with two things, for the noise predictor."""
        return rendered(self.work, "training-pairs", PAIR_SCENES, pairs=1.0)

    def held_out(self) -> Renders:
        """Scenes of another stream, for measuring."""
        return rendered(self.work, "held-out", HELD_OUT_SCENES)


def make_renders(bench: Bench) -> None:
    """Draw all scenes."""
    bench.training()
    bench.pairs()
    bench.held_out()


def make_vae(bench: Bench) -> None:
    """Train and export the autoencoder."""
    export.export_part(train_vae(bench.training(), bench.work, bench.device), bench.weights / "vae")


def make_decoder(bench: Bench) -> None:
    """Sharpen the decoder of the exported autoencoder; its latents do not change."""
    vae = AutoencoderKL.from_pretrained(bench.weights / "vae")
    refined = refine_decoder(vae, bench.training(), bench.work, bench.device)
    export.export_part(refined, bench.weights / "vae")


def make_clip(bench: Bench) -> None:
    """Build the tokenizer, train the text–image encoder and export both with the text half."""
    renders = bench.training()
    tokenizer = build_tokenizer(caption for row in renders.captions for caption in row)
    clip = train_clip(renders, tokenizer, bench.work, bench.device).cpu()
    export.export_clip(clip, text_half(clip), tokenizer, bench.weights)


def make_identity(bench: Bench) -> None:
    """Train and export the identity encoder."""
    export.export_identity(train_identity(bench.work, bench.device), bench.weights)


def make_judge(bench: Bench) -> None:
    """Train and export the judge."""
    export.export_judge(train_judge(bench.training(), bench.work, bench.device), bench.weights)


def make_unet(bench: Bench) -> None:
    """Train the noise predictor on the exported (fp16) encoders, from nothing, and ship it."""
    torch.manual_seed(PLAN.seed)
    _ship_unet(bench, "unet", build(), PLAN)


def make_unet_more(bench: Bench) -> None:
    """Train the noise predictor that ships for some more steps, with a new warm-up, and ship it."""
    shipped = UNet2DConditionModel.from_pretrained(bench.weights / "unet")
    _ship_unet(bench, "unet-more", shipped.train(), PLAN_MORE)


def _ship_unet(bench: Bench, stage: str, unet: UNet2DConditionModel, plan: StagePlan) -> None:
    """The average so far goes to the work folder at every checkpoint, and is shipped at the end."""
    vae = AutoencoderKL.from_pretrained(bench.weights / "vae").eval()
    text_encoder = CLIPTextModel.from_pretrained(bench.weights / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(bench.weights / "tokenizer")
    streams = [bench.training(), bench.pairs()]
    trained = train_unet(
        unet,
        scenes_of(streams, vae, tokenizer, bench.work, bench.device),
        (text_encoder, tokenizer),
        bench.work,
        bench.device,
        plan,
        snapshot=_unet_export(bench.work / f"{stage}-so-far"),
        stage=stage,
    )
    export.export_frame(bench.weights)
    export.export_part(trained, bench.weights / "unet")


def _unet_export(folder: Path) -> Callable[[nn.Module], None]:
    return lambda average: export.export_part(average, folder)


def make_table(bench: Bench) -> None:
    """Measure what was made against the bars and write the documentation."""
    write_table(bench.weights, bench.held_out(), bench.work, bench.docs)


STAGES: dict[str, Callable[[Bench], None]] = {
    "render": make_renders,
    "vae": make_vae,
    "decoder": make_decoder,
    "clip": make_clip,
    "identity": make_identity,
    "judge": make_judge,
    "unet": make_unet,
    "unet-more": make_unet_more,
    "measure": make_table,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen stages in order; one whose checkpoint is complete costs only its export."""
    parser = argparse.ArgumentParser(prog="python -m l2dm.pocket.make", description=__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(".pocket"),
        help="renders and checkpoints (default .pocket)",
    )
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="where the finished folder goes"
    )
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="where the quality table goes"
    )
    parser.add_argument(
        "--stage", action="append", choices=list(STAGES), help="only this stage (may be repeated)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.work, options.weights, options.docs, torch.device(options.device))
    for name in options.stage or STAGES:
        log.info("stage %s", name)
        STAGES[name](bench)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
