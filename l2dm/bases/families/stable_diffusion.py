"""Stable Diffusion 1 and 2: a UNet that reads one CLIP text encoder, and an autoencoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2dm.bases.family import Configs, Family, Networks, Part, Reader, TextLayer
from l2dm.bases.text import Text

if TYPE_CHECKING:
    from torch import Tensor


_SMALL = 8  # side of latents, which every such UNet halves three times at most
_CONTEXT = "max_position_embeddings"
_OTHER_INPUTS = (
    "addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim",
    "encoder_hid_dim_type", "time_cond_proj_dim",
)  # fmt: skip


@dataclass(frozen=True)
class StableDiffusion:
    """The networks of one base; sizes are read from its configs. `Networks` says what each does."""

    unet: Any  # diffusers and transformers are not typed
    vae: Any
    text_encoder: Any
    tokenizer: Any

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) as the UNet was trained."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @property
    def scaling(self) -> float:
        """The autoencoder's."""
        return float(self.vae.config.scaling_factor)

    def named(self) -> Mapping[str, Any]:
        """All three."""
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    def readers(self) -> Sequence[Reader]:
        """One."""
        return (Reader(self.tokenizer, self.text_encoder),)

    def text_layers(self) -> Mapping[str, TextLayer]:
        """Keys and values of every cross-attention layer; they see the text's rows alone."""
        found: dict[str, TextLayer] = {}
        for name, module in self.unet.named_modules():
            if getattr(module, "is_cross_attention", False):
                found[f"{name}.to_k"] = TextLayer(module.to_k)
                found[f"{name}.to_v"] = TextLayer(module.to_v)
        return found

    def read(self, prompts: Sequence[str]) -> Text:
        """The last hidden states."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        ids = tokens.input_ids.to(self.text_encoder.device)
        mask = tokens.attention_mask.to(self.text_encoder.device) if masked else None
        return Text(ids, self.text_encoder(ids, attention_mask=mask)[0])

    def read_nothing(self) -> Text:
        """An empty prompt."""
        return self.read([""])

    def predict(self, noisy: "Tensor", timesteps: "Tensor", text: Text) -> "Tensor":
        """The UNet's output, (B, C, h, w) like noisy. timesteps: (B,) or one for all."""
        output: Tensor = self.unet(
            noisy, timesteps, encoder_hidden_states=text.states, return_dict=False
        )[0]
        return output

    def encode(self, pictures: "Tensor") -> "Tensor":
        """The posterior's mean, scaled, (B, C, h, w). pictures: (B, 3, H, W) in [-1, 1]."""
        latents: Tensor = self.vae.encode(pictures).latent_dist.mean * self.scaling
        return latents

    def decode(self, latents: "Tensor") -> "Tensor":
        """The autoencoder's pictures, (B, 3, H, W). latents: (B, C, h, w), scaled."""
        pictures: Tensor = self.vae.decode(latents / self.scaling, return_dict=False)[0]
        return pictures


def _resolution(configs: Configs) -> int:
    """The UNet's side times the factor of the autoencoder."""
    side, blocks = configs["unet"]["sample_size"], configs["vae"]["block_out_channels"]
    return int(side * 2 ** (len(blocks) - 1))


def _misfits(configs: Configs) -> list[str]:
    """Parts that would fail, or draw nonsense, together; what a config omits is its class's own."""
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    text = text.get("text_config") or text
    problems = [
        f"unet/config.json sets {name}, which this architecture does not have; only bases that "
        "read a prompt and nothing else are supported"
        for name in _OTHER_INPUTS
        if unet.get(name) is not None
    ]
    side, channels = unet.get("sample_size"), vae.get("latent_channels", 4)
    if type(side) is not int or side < 1:
        problems.append(f"unet/config.json: expected a sample_size, found {str(side)[:40]}")
    found = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if found != (channels, channels):
        problems.append(
            f"unet/ reads and writes {str(found)[:40]} channels, vae/ has {str(channels)[:40]}; a "
            "UNet for inpainting or depth is no base"
        )
    width, wanted = text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)
    if width != wanted:
        problems.append(
            f"unet/ reads texts of width {str(wanted)[:40]}, text_encoder/ writes "
            f"{str(width)[:40]}; take both from one model"
        )
    length, room = configs["tokenizer"].get("model_max_length"), text.get(_CONTEXT, 77)
    if type(length) is not int or type(room) is not int or not 2 < length <= room:
        problems.append(
            f"tokenizer_config.json: expected a model_max_length of 3 to {str(room)[:40]}, which "
            f"text_encoder/ reads, found {str(length)[:40]}"
        )
    scaling = vae.get("scaling_factor", 0.18215)
    if type(scaling) not in (int, float) or not scaling > 0:
        problems.append(f"vae/config.json: expected a scaling_factor, found {str(scaling)[:40]}")
    return problems


def _lora_header(configs: Configs, prediction: str) -> Mapping[str, str]:
    """Keys of kohya's trainer and of the model specification; A1111 hides a LoRA by `ss_v2`."""
    second = configs["unet"].get("cross_attention_dim") == _SECOND
    turned = prediction == "v_prediction"
    side = _resolution(configs)
    kind = (
        ("stable-diffusion-v2-768-v" if turned else "stable-diffusion-v2-512")
        if second
        else ("stable-diffusion-v1")
    )
    return {
        "ss_v2": str(second),
        "ss_base_model_version": f"sd_v{2 if second else 1}{'_v' if turned else ''}",
        "ss_resolution": f"({side}, {side})",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{kind}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.prediction_type": "v" if turned else "epsilon",
        "modelspec.resolution": f"{side}x{side}",
    }


def _tokenizers(folder: Path) -> tuple[Any, ...]:
    from transformers import CLIPTokenizer

    return (CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),)


def _load(folder: Path, tokenizers: tuple[Any, ...], variant: str | None) -> StableDiffusion:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    options = {"use_safetensors": True, "variant": variant}
    whole = {"torch_dtype": torch.float32} | options
    return StableDiffusion(
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **whole),
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", **whole),
        text_encoder=CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32, **options
        ),
        tokenizer=tokenizers[0],
    )


def _try_out(networks: Networks) -> None:
    """Ask every network once, of zeros and small: a config of nonsense fails now or never.

    Raises ValueError for NaN, and whatever the networks raise.
    """
    import torch

    channels, side, _ = networks.latent_shape
    place = next(iter(networks.named().values())).device
    small = torch.zeros(1, channels, min(side, _SMALL), min(side, _SMALL), device=place)
    with torch.no_grad():
        text = networks.read_nothing()
        noise = networks.predict(small, torch.tensor(1, device=place), text)
        picture = networks.decode(small)
        answers = noise, picture, networks.encode(picture.clamp(-1, 1))
    if not all(answer.isfinite().all() for answer in answers):
        raise ValueError("it answers NaN or infinity to zeros")
    if noise.shape != small.shape:
        raise ValueError(f"it predicts {tuple(noise.shape)} of {tuple(small.shape)}")


_SECOND = 1024  # width of the text that Stable Diffusion 2 reads; 768 is that of the first
FAMILY = Family(
    name="Stable Diffusion 1/2",
    pipeline="StableDiffusionPipeline",
    parts=(
        Part("unet", frozenset({"UNet2DConditionModel"})),
        Part("vae", frozenset({"AutoencoderKL"})),
        Part("text_encoder", frozenset({"CLIPTextModel"}), prefix="text_model."),
        Part("tokenizer", frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}), weights=False),
    ),
    without=frozenset({"text_encoder_2"}),
    denoiser="unet",
    shifted=("unet", "text_encoder"),
    predictions=("epsilon", "v_prediction"),
    resolution=_resolution,
    tokenizers=_tokenizers,
    load=_load,
    kohya="lora_unet",
    lora_header=_lora_header,
    misfits=_misfits,
    try_out=_try_out,
)
