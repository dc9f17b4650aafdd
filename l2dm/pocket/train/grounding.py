"""Cross-attention held to where a noun's thing is drawn, while the base is trained.

The renderer knows which pixels belong to which noun, so a noun's token can be taught to look there:
TokenCompose (Wang et al., 2023, arXiv 2312.03626), its token loss. Their pixel loss is left out: it
asks a pixel for one token, and colours and patterns are read at the same pixels.
"""

import math
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor
from torch.nn import functional as F

SMALLEST_SIDE = 8  # maps with fewer cells a side are too coarse for two things side by side


def token_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """(1 - share of a token's attention that lies inside its mask)², (B, T). TokenCompose, Eq. 2.

    maps: (B, T, H, W), not negative. masks: (B, T, H, W) in [0, 1]. A token without a mask (all
    zero) costs nothing.
    """
    inside = (maps * masks).sum((-2, -1)) / maps.sum((-2, -1)).clamp(min=1e-6)
    return (1 - inside).square() * (masks.amax((-2, -1)) > 0)


class CrossAttentionMaps:
    """Records the cross-attention of chosen words in every forward pass, with its gradient.

    Attached once; `chosen` must be set before each pass: (B, T, L), 1 where token t of a row's
    words stands. After the pass `maps` holds (B, T, H, W) for each layer, means over the heads.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.chosen: Tensor | None = None
        self.maps: list[Tensor] = []
        unet.set_attn_processor(
            {
                name: _Recording(self) if name.endswith("attn2.processor") else AttnProcessor()
                for name in unet.attn_processors
            }
        )


class _Recording:
    """Plain attention that leaves the chosen columns of its probabilities with the recorder."""

    def __init__(self, recorder: CrossAttentionMaps) -> None:
        self._recorder = recorder

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See diffusers' AttnProcessor; hidden_states: (B, H·W, C), as every UNet block hands them.

        The UNet of the pocket base has no masks, group norms or residuals inside its attention.
        """
        assert encoder_hidden_states is not None
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key)  # (B·heads, H·W, L)
        chosen = self._recorder.chosen
        side = math.isqrt(hidden_states.shape[1])
        if chosen is not None and side >= SMALLEST_SIDE:
            over_heads = probabilities.unflatten(0, (-1, attn.heads)).float().mean(1)
            maps = chosen.float() @ over_heads.transpose(1, 2)  # (B, T, H·W)
            self._recorder.maps.append(maps.unflatten(-1, (side, side)))
        states = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        shown: Tensor = attn.to_out[1](attn.to_out[0](states))
        return shown


def grounding_loss(maps: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Mean of `token_loss` over layers and words, (B,).

    masks: (B, T, h, w), reduced to the size of each map.
    """
    losses = [token_loss(one, F.adaptive_avg_pool2d(masks, one.shape[-1])) for one in maps]
    return torch.stack(losses).mean((0, 2))
