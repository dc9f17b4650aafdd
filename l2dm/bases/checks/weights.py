"""Which files the weights of a part are read from, and what their headers say."""

from pathlib import PurePosixPath

from l2dm.bases.checks.files import Files
from l2dm.bases.checks.headers import DeclaredTensor, read_header
from l2dm.errors import BadBase

STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


def files_of(files: Files, part: str, library: str, variant: str | None) -> list[str]:
    """Names, in the base's folder, of the files that the library reads a part's weights from.

    Raises BadBase when there are none, or an index names others than files of the part.
    """
    stem, half = STEMS[library], f".{variant}" if variant else ""
    single = f"{part}/{stem}{half}.safetensors"
    index = f"{part}/{stem}.safetensors.index{half}.json"
    order = [index, single] if library == "diffusers" else [single, index]
    for name in order:
        if name == single and files.has(name):
            return [name]
        if name == index and files.has(name):
            return _shards(files, part, name)
    raise BadBase(
        f"{part}/: expected its weights in {single.partition('/')[2]}, found no such file"
    )


def header_of(
    files: Files, part: str, library: str, variant: str | None = None
) -> dict[str, DeclaredTensor]:
    """Every tensor of a part. Raises BadBase."""
    found: dict[str, DeclaredTensor] = {}
    for name in files_of(files, part, library, variant):
        for key, stored in read_header(files.file(name), name).items():
            if key in found:
                raise BadBase(f"{name}: tensor {key[:80]!r} lies in two files of {part}/")
            found[key] = stored
    return found


def _shards(files: Files, part: str, index: str) -> list[str]:
    places = files.json(index, 8 << 20).get("weight_map")
    named = isinstance(places, dict) and all(isinstance(one, str) for one in places.values())
    if not named or not places:
        raise BadBase(f"{index}: expected a weight_map of names to files, found none")
    names = sorted(set(places.values()))
    for name in names:
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            raise BadBase(f"{index}: expected files of {part}/, found {name[:80]!r}")
    return [f"{part}/{name}" for name in names]
