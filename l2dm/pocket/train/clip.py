"""The text–image encoder; its text half becomes the pipeline's text encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from l2dm.pocket.train.loop import StagePlan, fingerprint, train
from l2dm.pocket.train.tokenizer import CONTEXT, token_ids
from l2dm.pocket.world.batches import pick
from l2dm.pocket.world.render_cache import NOTHING, Renders
from l2dm.pocket.world.scenes import BACKGROUNDS, COLOURS, NOUNS, SIZE

PLAN = StagePlan(steps=900, rate=1e-3, warm=100, cool=0.6, weight_decay=0.05)
BATCH = 128
WIDTH = 192
FULL_SHARE = 0.7  # steps on captions that say everything; loose ones fit many pictures of a batch
HEAD_SIZES = (len(NOUNS), len(COLOURS), NOTHING + 1, len(COLOURS), len(BACKGROUNDS))


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Width 192, 4 text and 5 vision layers, patch 8: about 3.6 M parameters."""
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_attention_heads": 6,
        "projection_dim": WIDTH,
    }
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 4,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**shared, "num_hidden_layers": 5, "image_size": SIZE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class Tutored(nn.Module):
    """CLIP with heads that read the labels off both embeddings.

    Free supervision that makes it learn much faster.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.heads = nn.ModuleList(nn.Linear(WIDTH, size) for size in HEAD_SIZES)

    def label_loss(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the labels; a thing that is not there has no colour.

        embedding: (B, D). labels: (B, 5). Returns ().
        """
        losses = []
        for i, head in enumerate(self.heads):
            target = labels[:, i].long()
            if i == 3:
                target = target.masked_fill(labels[:, 2] == NOTHING, -100)
            losses.append(F.cross_entropy(head(embedding).float(), target))
        return torch.stack(losses).mean()


def contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch; image, text: (B, D), not normalised. Source.

    Radford et al. (2021).
    """
    logits = (
        scale.exp().clamp(max=100)
        * F.normalize(image.float(), dim=-1)
        @ F.normalize(text.float(), dim=-1).T
    )
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_clip(
    renders: Renders,
    tokenizer: CLIPTokenizer,
    work: Path,
    device: torch.device,
    plan: StagePlan = PLAN,
) -> CLIPModel:
    """Contrastive loss on full and loose captions, plus label losses on pictures and captions."""
    torch.manual_seed(plan.seed)
    tutored = Tutored(build(tokenizer)).to(device)
    clip, labels = tutored.clip, torch.from_numpy(renders.labels)
    ids = caption_ids(renders, tokenizer, work)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index, pictures = pick(renders, BATCH, generator)
        full = float(torch.rand((), generator=generator)) < FULL_SHARE
        column = 0 if full else int(torch.randint(1, ids.shape[1], (), generator=generator))
        tokens, target = ids[index, column].long().to(device), labels[index].to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            image = clip.visual_projection(clip.vision_model(pictures.to(device)).pooler_output)
            text = clip.text_projection(clip.text_model(tokens).pooler_output)
            seen = tutored.label_loss(image, target)
            read = tutored.label_loss(text, target) if full else torch.zeros((), device=device)
        pull = contrast(image, text, clip.logit_scale)
        return pull + seen + read, {"contrast": pull.item(), "labels": seen.item()}

    trained_on = fingerprint(renders.key, ids, BATCH, FULL_SHARE)
    trained = train("clip", tutored, loss, plan, work, trained_on)
    assert isinstance(trained, Tutored)
    return trained.clip.eval()


def caption_ids(renders: Renders, tokenizer: CLIPTokenizer, work: Path) -> Tensor:
    """Every caption tokenized: (N, captions, 32) int16, kept in the work folder."""
    path = work / f"ids-{renders.key}.npy"
    if not path.exists():
        flat = [caption for row in renders.captions for caption in row]
        table = np.array(token_ids(tokenizer, flat), np.int16)
        np.save(path, table.reshape(len(renders), -1, CONTEXT))
    return torch.from_numpy(np.load(path))


def text_half(clip: CLIPModel) -> CLIPTextModel:
    """The same weights as a stand-alone text encoder, as a Stable Diffusion folder wants it."""
    half = CLIPTextModel(clip.config.text_config)
    state = {
        key.removeprefix("text_model."): value
        for key, value in clip.text_model.state_dict().items()
    }
    half.load_state_dict(state)
    return half.eval()


@torch.no_grad()
def embedded(
    clip: CLIPModel, tokenizer: CLIPTokenizer, captions: Sequence[str], pictures: Tensor
) -> tuple[Tensor, Tensor]:
    """Normalised embeddings of captions and of pictures in [-1, 1]: two (N, 192)."""
    tokens = torch.tensor(token_ids(tokenizer, captions))
    text = clip.text_projection(clip.text_model(tokens).pooler_output)
    image = clip.visual_projection(clip.vision_model(pictures).pooler_output)
    return F.normalize(text, dim=-1), F.normalize(image, dim=-1)
