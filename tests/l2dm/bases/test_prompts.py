import pytest

from l2dm.bases.prompts import (
    placeholders_in,
    require_known,
    without_placeholders,
)
from l2dm.errors import BadPrompt


def test_placeholders_in_order_each_once() -> None:
    assert placeholders_in("<tom> and <rex-2> and <tom>, <not a slug>") == ("tom", "rex-2")


def test_unknown_concept_is_refused_with_what_the_line_knows() -> None:
    require_known("a photo of a <rex> dog", {"rex"})
    with pytest.raises(
        BadPrompt, match=r"names <tom>, which this line has not learned; it knows: <rex>"
    ):
        require_known("a <tom> cat beside <rex>", {"rex"})
    with pytest.raises(BadPrompt, match="it knows: none yet"):
        require_known("<tom>", ())


def test_without_placeholders_keeps_the_noun() -> None:
    assert without_placeholders("a photo of a <rex> dog on grass") == "a photo of a dog on grass"
