"""Tables that people write: what is refused, in which words, with which nearest key."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import Field, field_validator

from l2dm.errors import BadSettings
from l2dm.sections import Section, described, nearest, refusal, replaced


class Table(Section):
    NOUN, TABLE = "house.toml", "a table"
    ERROR = BadSettings


class Room(Table):
    """A room."""

    width: float = Field(3.0, gt=0, le=20, description="metres")
    colour: Literal["white", "blue"] = Field("white", description="of the walls")
    doors: tuple[str, ...] = Field((), strict=False, description="names")

    @field_validator("doors")
    @classmethod
    def _open(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "locked" in value:
            raise refusal("expected doors that open, found 'locked' {sic}")
        return value


class House(Table):
    """All of it."""

    owner: str = Field(description="who pays")
    floors: int = Field(1, ge=1, le=3, description="above the ground")
    hall: Room = Room()
    cellar: Room | None = Field(None, description="if there is one")
    rooms: Mapping[str, Room] = Field({}, description="by name")
    sheds: tuple[Room, ...] = Field((), strict=False, description="outside")


def problems(data: Mapping[str, Any]) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        House(**data)
    return caught.value.problems


def test_every_problem_is_told_at_once_with_its_place() -> None:
    assert problems(
        {
            "floors": 4,
            "hall": {"width": 0, "colour": "red", "colr": 1, "doors": ["locked"]},
            "cellar": 3,
            "rooms": {"attic": {"wdth": 1, "width": True}, "den": []},
            "sheds": [{}, {"doors": "one"}],
        }
    ) == (
        "house.toml owner: expected a value, found none",
        "house.toml floors: expected a number from 1 to 3, found 4",
        "house.toml hall.width: expected a number over 0 and at most 20, found 0",
        "house.toml hall.colour: expected one of 'white', 'blue', found 'red'",
        "house.toml hall.doors: expected doors that open, found 'locked' {sic}",
        "house.toml has no key 'hall.colr'; nearest known key: hall.colour",
        "house.toml cellar: expected a table, found 3",
        "house.toml rooms.attic.width: expected float, found True",
        "house.toml has no key 'rooms.attic.wdth'; nearest known key: rooms.attic.width",
        "house.toml rooms.den: expected a table, found []",
        "house.toml sheds[1].doors: expected a list, found 'one'",
    )


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_in_a_range_is_finite(value: float) -> None:
    (problem,) = problems({"owner": "ada", "hall": {"width": value}})
    assert problem == f"house.toml hall.width: expected a finite number, found {value}"


def test_a_choice_is_told_and_described_in_the_same_words() -> None:
    (told,) = problems({"owner": "ada", "hall": {"colour": "red"}})
    described_as = next(one.expected for one in described(House) if one.key == "hall.colour")
    assert told == f"house.toml hall.colour: expected {described_as}, found 'red'"


def test_what_is_written_is_kept_and_whole_numbers_are_floats() -> None:
    house = House(owner="ada", rooms={"attic": {"width": 2}}, sheds=[{"doors": ["north"]}])
    assert type(house.rooms["attic"].width) is float
    assert house.sheds[0].doors == ("north",)
    assert replaced(house, floors=2).floors == 2
    with pytest.raises(BadSettings, match="floors: expected a number from 1 to 3, found 0"):
        replaced(house, floors=0)


def test_a_key_is_described_with_default_range_and_meaning() -> None:
    keys = {one.key: one[1:] for one in described(House)}
    assert keys["floors"] == (1, "int, a number from 1 to 3", "above the ground")
    assert keys["hall.width"] == (3.0, "float, a number over 0 and at most 20", "metres")
    assert keys["hall.colour"] == ("white", "one of 'white', 'blue'", "of the walls")
    assert keys["cellar.width"][1] == keys["hall.width"][1]


def test_of_equally_like_keys_one_of_the_same_section_is_nearest_then_the_first() -> None:
    keys = ["a.steps", "b.steps", "b.rate"]
    assert nearest("b.stepz", keys) == "b.steps"
    assert nearest("stepz", keys) == "a.steps"
    assert nearest("b.budget", ["a.budget", "b.rate"]) == "a.budget"
