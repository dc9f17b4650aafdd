"""What comes from outside is read within limits: settings, specs, settings files, records."""

import json
from pathlib import Path

import pytest

from l2dm import spec as specs
from l2dm.errors import BadSettings, BadSpec
from l2dm.outside import MAX_DEPTH, read_json
from l2dm.spec import Spec, override
from pipelines.places.settings import load

DEEP = "[" * 100_000


def test_plain_json_is_read_as_python_reads_it() -> None:
    text = '{"a": [1, 2.5, -3e2, true, null, "x[[["], "b": {"c": 12345678901234567890}}'
    assert read_json(text) == json.loads(text)
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "up to 64 deep, found more"),
        (DEEP + "]" * 100_000, "up to 64 deep, found more"),
        ('{"a":' * 65 + "1" + "}" * 65, "up to 64 deep, found more"),
        ("9" * 5000, "up to 400 digits, found one of 5,000"),
        ("[1." + "9" * 5000 + "]", "up to 400 digits"),
        ("[" + " " * 10_000 + "]", "at most 9,000 bytes, found 10,002"),
        ("{", "Expecting"),
    ],
)
def test_what_is_too_much_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_json(text, 9000 if len(text) == 10_002 else 10_000_000)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"sampling.steps={'[' * 9000}", "up to 64 deep, found more"),
        (f"sampling.steps={DEEP}", "at most 10,000 characters, found 100,015"),
        (f"sampling.steps={'9' * 5000}", "up to 400 digits"),
        (f"sampling.steps={'9' * 50}", "a number from 0 to 1000"),
        ("sampling.steps=1001", "a number from 0 to 1000, found 1001"),
        ("sampling.guidance=1e400", "a finite number, found inf"),
        ("train.rank=1000000000", "a number from 1 to 4096"),
        (f"seed={2**63}", r"a number from 0 to 4,611,686,018,427,387,904"),
        ("train.steps=10000001", "at most 10,000,000, found 10000001"),
        ("train.rate=1e9", "at most 10,000,000"),
        (f"{'a.' * 50_000}b=1", "expected section.key=value"),
        ("x=" + "[" * 900 + "]" * 900, "up to 64 deep, found more"),
    ],
)
def test_a_setting_without_bounds_is_refused(setting: str, said: str) -> None:
    with pytest.raises(BadSpec, match=said):
        override(Spec(), [setting])


def test_a_spec_without_bounds_is_refused() -> None:
    for text in (DEEP, '{"seed": ' + "9" * 5000 + "}"):
        with pytest.raises(BadSpec, match="spec is not JSON"):
            specs.from_json(text)


def test_every_number_of_the_spec_has_bounds() -> None:
    schema = json.dumps(Spec.model_json_schema())
    assert schema.count('"maximum"') >= 25


def test_a_settings_file_without_bounds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "l2dm.toml"
    for text in (f"x = {DEEP}", f"x = {'9' * 5000}", "#" * 1_000_001):
        file.write_text(text)
        with pytest.raises(BadSettings, match=r"l2dm\.toml"):
            load(file)
