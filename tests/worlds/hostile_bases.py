"""Base folders as a careless or hostile stranger makes them: a good one with one thing changed.

`make(good, folder, seed)` writes one and says what is wrong with it. The same seed, the same base.
"""

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGS = (
    "unet/config.json", "vae/config.json", "text_encoder/config.json", "clip/config.json",
    "identity/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json",
)  # fmt: skip
JSON = (*CONFIGS, "model_index.json", "sampling.json", "identity/preprocessor_config.json")
PARTS = ("unet", "vae", "text_encoder", "clip", "identity")
WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors", "clip/model.safetensors", "identity/model.safetensors",
)  # fmt: skip
STORED = (*WEIGHTS, "identity/distractors.safetensors")
LEFT = "l2dm-was-here"  # file that the code of a hostile base would leave
Change = Callable[[Path, random.Random], str]


def make(good: Path, folder: Path, seed: int) -> str:
    """Write a base that must be refused. Returns what is wrong with it."""
    generator = random.Random(f"hostile {seed}")
    shutil.copytree(good, folder)
    return CHANGES[seed % len(CHANGES)](folder, generator)


def make_odd(good: Path, folder: Path, seed: int) -> str:
    """Write a base with one value of a config that is of another kind: it may even be good."""
    generator = random.Random(f"odd {seed}")
    shutil.copytree(good, folder)
    name = generator.choice(JSON)
    content = json.loads((folder / name).read_text())
    key = generator.choice(sorted(content))
    odd: list[Any] = [-1, 0, 1, 7, "x", "", [], [[]], {}, None, True, 0.5, [10**6], 10**6, "../x"]
    content[key] = generator.choice(odd)
    (folder / name).write_text(json.dumps(content))
    return f"{name}: {key} = {content[key]!r}"


def no_json(folder: Path, generator: random.Random) -> str:
    name = generator.choice(JSON)
    text = generator.choice(
        [b"", b"{", b"\x00\xff\xfe", b"[1]", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 50_000,
         b'{"a": ' + b"9" * 6000 + b"}", b" " * (2 << 20)]
    )  # fmt: skip
    (folder / name).write_bytes(text)
    return f"{name} is {text[:20]!r}"


def false_header(folder: Path, generator: random.Random) -> str:
    name = generator.choice(STORED)
    whole = (folder / name).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    size = length.to_bytes(8, "little")
    choices = {
        "nothing": b"",
        "four bytes": whole[:4],
        "a header without end": (1 << 62).to_bytes(8, "little") + whole[8:],
        "a header past the end": len(whole).to_bytes(8, "little") + whole[8:],
        "a header of rubbish": size + generator.randbytes(length) + whole[8 + length :],
        "a header of brackets": size + b"[" * length + whole[8 + length :],
        "half": whole[: len(whole) // 2],
        "a byte less": whole[:-1],
        "more": whole + b"more",
    }
    what = generator.choice(sorted(choices))
    (folder / name).write_bytes(choices[what])
    return f"{name} holds {what}"


def false_entry(folder: Path, generator: random.Random) -> str:
    name = generator.choice(STORED)
    header, rest = split(folder / name)
    key = generator.choice(sorted(key for key in header if key != "__metadata__"))
    entry = header[key]
    begin, end = entry["data_offsets"]
    change: dict[str, Any] = generator.choice(
        [
            {"dtype": "I8"}, {"dtype": "F8_E4M3"}, {"dtype": "evil"}, {"dtype": 7}, {"dtype": None},
            {"shape": [*entry["shape"], 2]}, {"shape": [-1]}, {"shape": [0.5]}, {"shape": "x"},
            {"shape": [10**12]}, {"shape": [1 << 62, 4]}, {"data_offsets": [begin, end + 4]},
            {"data_offsets": [end, begin]}, {"data_offsets": [begin]}, {"data_offsets": None},
            {"shape": [True]},
        ]
    )  # fmt: skip
    header[key] = entry | change
    join(folder / name, header, rest)
    return f"{name}: {key} says {change}"


def other_tensors(folder: Path, generator: random.Random) -> str:
    from safetensors.torch import load_file, save_file

    name = generator.choice(WEIGHTS)
    tensors = load_file(folder / name)
    key = generator.choice(sorted(one for one in tensors if tensors[one].ndim))
    what = generator.choice(["without", "more", "renamed", "misshapen"])
    if what == "more":
        tensors["evil.weight"] = tensors[key].clone()
    else:
        one = tensors.pop(key)
        if what == "renamed":
            tensors[f"{key}x"] = one
        elif what == "misshapen":
            tensors[key] = one.flatten()[: one.numel() - 1].clone().reshape(-1, 1)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return f"{name} {what} {key}"


def no_plain_file(folder: Path, generator: random.Random) -> str:
    name = generator.choice([*CONFIGS, *STORED, "model_index.json", "sampling.json"])
    path, what = (
        folder / name,
        generator.choice(["pipe", "folder", "out", "device", "socket", "us"]),
    )
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "out":
        path.symlink_to("/etc/passwd")
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "us":
        path.symlink_to(path.name)
    else:
        place = Path(f"/tmp/{os.getpid()}.{generator.getrandbits(32):x}.socket")
        with socket.socket(socket.AF_UNIX) as ear:
            ear.bind(str(place))
        shutil.move(place, path)
    return f"{name} is a {what}"


def out_of_reason(folder: Path, generator: random.Random) -> str:
    name = generator.choice([*CONFIGS, "sampling.json"])
    content = json.loads((folder / name).read_text())
    keys = [
        key for key, value in content.items() if type(value) in (int, float) and key not in ENDLESS
    ]
    key = generator.choice(sorted(keys))
    value = generator.choice(["1000000000", "1" + "0" * 30, "NaN", "Infinity", "-1000000000"])
    content[key] = "VALUE"
    (folder / name).write_text(json.dumps(content).replace('"VALUE"', value))
    return f"{name}: {key} = {value}"


def many_layers(folder: Path, generator: random.Random) -> str:
    name, key, value = generator.choice(
        [
            ("unet/config.json", "layers_per_block", 100),
            ("unet/config.json", "transformer_layers_per_block", [100, 100]),
            ("unet/config.json", "sample_size", 100_000),
            ("unet/config.json", "block_out_channels", [16] * 10_000),
            ("vae/config.json", "layers_per_block", 128),
            ("vae/config.json", "block_out_channels", [8] * 1000),
            ("text_encoder/config.json", "num_hidden_layers", 128),
            ("identity/config.json", "depths", [128] * 2),
            ("tokenizer/tokenizer_config.json", "model_max_length", 100_000),
            ("scheduler/scheduler_config.json", "num_train_timesteps", 1_000_000),
        ]
    )  # fmt: skip
    change(folder / name, **{key: value})
    return f"{name}: {key} = {str(value)[:40]}"


def other_class(folder: Path, generator: random.Random) -> str:
    kinds: list[Any] = [
        "UNet2DConditionModel", "StableDiffusionPipeline", "os.system", 5, ["a", "b"], {},
        "../evil", "FlaxDDIMScheduler", "ControlNetModel",
    ]  # fmt: skip
    kind = generator.choice(kinds)
    what = generator.choice(["scheduler", "index", "pipeline", "part", "library", "entry"])
    if what == "scheduler":
        change(folder / "scheduler/scheduler_config.json", _class_name=kind)
    elif what == "pipeline":
        kind = kind if kind != "StableDiffusionPipeline" else "StableDiffusionXLPipeline"
        change(folder / "model_index.json", _class_name=kind)
    elif what == "index":
        change(folder / "model_index.json", scheduler=["diffusers", kind])
    elif what == "part":
        kind = kind if kind != "UNet2DConditionModel" else "UNet3DConditionModel"
        change(folder / "model_index.json", unet=["diffusers", kind])
    elif what == "library":
        plant(folder / "evil.py")
        change(folder / "model_index.json", vae=["evil", "AutoencoderKL"])
    else:
        change(folder / "model_index.json", text_encoder=kind)
    return f"{what} is {kind!r}"


def code(folder: Path, generator: random.Random) -> str:
    part = generator.choice([*PARTS, "tokenizer"])
    config = folder / part / f"{'tokenizer_' if part == 'tokenizer' else ''}config.json"
    plant(folder / "evil.py")
    what = generator.choice(["auto_map", "attention", "quantised", "file", "adapter", "pickle"])
    if what == "auto_map":
        change(config, auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    elif what == "attention":
        change(config, _attn_implementation="somebody/kernel")
    elif what == "quantised":
        change(config, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    elif what == "file":
        plant(folder / part / "evil.py")
    elif what == "adapter" or part == "tokenizer":
        what = "adapter"
        (folder / part / "adapter_config.json").write_text('{"base_model_name_or_path": "../.."}')
    else:
        for path in (folder / part).glob("*model.safetensors"):
            path.rename(path.with_suffix(".bin"))
    return f"{part}: {what}"


def false_index(folder: Path, generator: random.Random) -> str:
    name = generator.choice(WEIGHTS[:4])
    path = folder / name
    path.rename(path.with_name("moved.safetensors"))
    places: Any = generator.choice(
        [{"a": "../vae/diffusion_pytorch_model.safetensors"}, {"a": "/etc/passwd"}, {"a": 5}, 7, {},
         {"a": "gone.safetensors"}, {"a": ".."}, {"a": "moved.safetensors\0"}]
    )  # fmt: skip
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"weight_map": places}))
    return f"{name} lies in {places!r}"


def other_words(folder: Path, generator: random.Random) -> str:
    path = folder / "tokenizer/tokenizer.json"
    what = generator.choice(["{", "rubbish", "numbers", "gone", "large", "length"])
    if what == "numbers":
        content = json.loads(path.read_text())
        content["model"]["vocab"] = {
            word: number + 10**6 for word, number in content["model"]["vocab"].items()
        }
        path.write_text(json.dumps(content))
    elif what == "gone":
        path.unlink()
    elif what == "large":
        os.truncate(path, 1 << 40)
    elif what == "length":
        change(folder / "tokenizer/tokenizer_config.json", model_max_length=None)
    else:
        path.write_bytes(b"{" if what == "{" else generator.randbytes(500))
    return f"words: {what}"


ENDLESS = {"lambda_min_clipped"}
CHANGES: tuple[Change, ...] = (
    no_json, false_header, false_entry, other_tensors, no_plain_file, out_of_reason, many_layers,
    other_class, code, false_index, other_words,
)  # fmt: skip


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def plant(path: Path) -> None:
    """Code that shows that it ran."""
    path.write_text(f"open({str(path.parent / LEFT)!r}, 'w').close()\n")


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def join(path: Path, header: dict[str, Any], rest: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)
