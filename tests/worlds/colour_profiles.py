"""Colour profiles of our own: matrix profiles, as cameras and phones embed them."""

import struct

import numpy as np

SPACES = {  # primaries red, green, blue; white; gamma
    "display-p3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.3127, 0.3290), 2.2),
    "adobe-rgb": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (0.3127, 0.3290), 2.2),
    "prophoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), 1.8),
}
_D50 = np.array((0.9642, 1.0, 0.8249))
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)


def profile(name: str) -> bytes:
    """A profile of ICC version 2 of one of SPACES."""
    primaries, white, gamma = SPACES[name]
    columns = np.array([_xyz(*one) for one in primaries]).T
    matrix = columns * np.linalg.solve(columns, _xyz(*white))
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ _xyz(*white))
    matrix = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return _file(
        b"RGB ",
        {
            b"wtpt": _tag(_D50),
            b"rXYZ": _tag(matrix[:, 0]),
            b"gXYZ": _tag(matrix[:, 1]),
            b"bXYZ": _tag(matrix[:, 2]),
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        },
    )


def grey_profile(gamma: float) -> bytes:
    """A profile for grey pictures."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return _file(b"GRAY", {b"wtpt": _tag(_D50), b"kTRC": curve})


def _file(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"of a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        **tags,
    }
    body, table, at = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    size = at + len(body)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", size, b"lcms", 0x02100000, b"mntr", space, b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array((x / y, 1.0, (1 - x - y) / y))


def _tag(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)
