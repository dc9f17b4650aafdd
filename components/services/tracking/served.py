"""What a registered version says of how it is served: what it takes, what it needs, its own code.

A name without a version, or one that somebody else may own on an index, is no requirement: the
libraries are pinned to what is installed here, and our own code goes along as a wheel.
"""

import base64
import hashlib
import io
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import l2dm

LIBRARIES = (
    *("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pillow"),
    *("numpy", "pydantic", "mlflow"),
)
_LEFT_OUT = ("pocket/",)  # a base with its making; what serves needs a base, wherever it lies
_KEPT = ("pocket/__init__.py",)
_FOR_EVER = (1980, 1, 1, 0, 0, 0)  # a zip's earliest time: equal code is equal bytes


def signature() -> Any:
    """The signature of every version: columns, and params for rows that leave them out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    options = (
        ("negative_prompt", DataType.string, ""),
        ("seed", DataType.long, 0),
        ("count", DataType.long, 1),
        ("steps", DataType.long, 0),
        ("guidance", DataType.double, 0.0),
        ("scale", DataType.string, ""),
    )
    columns = [ColSpec(kind, name, required=False) for name, kind, _ in options]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt"), *columns]),
        outputs=Schema([ColSpec(DataType.binary, "image")]),
        params=ParamSchema([ParamSpec(name, kind, default) for name, kind, default in options]),
    )


def requirements() -> list[str]:
    """The libraries that serving needs, each pinned. A build's own mark (`+cpu`) is left out."""
    pinned = []
    for name in LIBRARIES:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:  # mlflow's slim build has another name
            pinned.append(f"{name}-skinny=={version(f'{name}-skinny')}")
    return pinned


def write_wheel(folder: Path) -> tuple[Path, str]:
    """Our library as a wheel in a folder; its path and its sha256. Equal code is equal bytes."""
    path = folder / f"l2dm-{l2dm.__version__}-py3-none-any.whl"
    data = _wheel()
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


@cache
def _wheel() -> bytes:
    root = Path(str(l2dm.__file__)).parent
    files = {
        f"l2dm/{name}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".py", ".html") and _belongs(name := path.relative_to(root).as_posix())
    }
    about = f"l2dm-{l2dm.__version__}.dist-info"
    needed = "".join(f"Requires-Dist: {one}\n" for one in requirements())
    head = f"Metadata-Version: 2.1\nName: l2dm\nVersion: {l2dm.__version__}\n{needed}"
    kind = "Wheel-Version: 1.0\nGenerator: l2dm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files |= {f"{about}/METADATA": head.encode(), f"{about}/WHEEL": kind.encode()}
    listed = "".join(f"{name},{_recorded(data)},{len(data)}\n" for name, data in files.items())
    files[f"{about}/RECORD"] = f"{listed}{about}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _FOR_EVER)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def _belongs(name: str) -> bool:
    return name in _KEPT or not name.startswith(_LEFT_OUT)


def _recorded(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
