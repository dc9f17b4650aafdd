import pytest

from l2dm.bases.prompts import (
    MAX_PROMPT,
    placeholders_in,
    require_known,
    understand,
    without_placeholders,
)
from l2dm.doors import Concept
from l2dm.errors import BadPrompt

KNOWN = (Concept("rex", "dog"), Concept("my-cup", "red cup"), Concept("bear", "teddy bear"))


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
    assert without_placeholders("a <rex> dog, a <tom> cat", {"rex"}) == "a dog, a <tom> cat"


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a <rex> dog on grass",
        "a <bear> teddy bear and a <my-cup> red cup",
        "a dog (brown, small) at 12:30 [",
        "трава, 草の上の犬, emoji 🐕",
        "",
    ],
)
def test_a_plain_prompt_is_read_as_it_is_and_nothing_is_told(prompt: str) -> None:
    read = understand(prompt, KNOWN)
    assert (read.prompt, read.notes) == (prompt, ())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a <Nobody> dog", r"names <Nobody>, which this line has not learned; it knows: <bear>, "),
        ("a <rexx> dog", r"names <rexx>.*the nearest: <rex>"),
        ("a <ТОМ> dog", "names <ТОМ>"),
        ("a (<rex>:1.3) dog", r"found '\(<rex>:1\.3\)'; weights of words are not read here"),
        ("a (red hat: .5)", "weights of words"),
        ("a [rex:dog:0.4]", "weights of words"),
        ("a <rex:1.3> dog", r"found '<rex:1\.3>'; a concept is written without a number"),
        ("<lora:rex:0.8> a dog", r"found '<lora:rex:0\.8>'; files are not loaded by a prompt"),
        ("< LORA:rex>", "files are not loaded by a prompt"),
        ("embedding:rex dog", "found 'embedding:rex'; embeddings are not loaded by a prompt"),
        ("(Embedding:rex.pt:1.2)", "embeddings are not loaded"),
        ("a <rex dog", r"found '<rex' without its >; write <rex>"),
        ("a < Rex dog", r"found '< Rex' without its >; write <rex>"),
        ("a my-cup> on grass", r"found 'my-cup>' without its <; write <my-cup>"),
        ("a rex > dog", r"found 'rex >' without its <; write <rex>"),
        ("<a <rex> dog", r"found '<a' without its >; this line knows: <bear>, <my-cup>, <rex>"),
        ("a <tom cat", r"found '<tom' without its >; this line knows"),
        ("a <<rexx>> dog", "names <<rexx>>, which this line has not learned"),
        ("<rex></rex>", "names </rex>"),
        ("a\x00dog", "a control character or half a letter"),
        ("a \ud800 dog", "a control character or half a letter"),
        ("dog " * MAX_PROMPT, "expected at most 10,000 characters, found 40,000"),
    ],
)
def test_what_would_be_drawn_as_letters_is_refused(prompt: str, said: str) -> None:
    with pytest.raises(BadPrompt, match=said):
        understand(prompt, KNOWN)


def test_all_problems_of_a_prompt_are_listed() -> None:
    with pytest.raises(BadPrompt) as refused:
        understand("embedding:rex (dog:2) <lora:a:1> <Nobody>", KNOWN)
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a photo of a rex dog", "'rex' in the prompt is read as a plain word"),
        ("a REX, running", "the concept is written <rex>"),
        ("‹rex› dog", "the concept is written <rex>"),
        ("&lt;rex&gt; dog", "the concept is written <rex>"),
        ("a bear in the woods", "the concept is written <bear>"),
        ("a my-cup", "the concept is written <my-cup>"),
        ("((red)) dog", "brackets are no emphasis here"),
        ("[red] dog", "brackets are no emphasis here"),
        ("a dog BREAK a cat", "it divides nothing here"),
        ("a {red|blue} dog", "nothing is chosen at random here"),
        ("a __colour__ dog", "nothing is chosen at random here"),
        ("a <red hat> dog", "no concept's name"),
        ("a <rex dog>", "no concept's name"),
        ("a dog <3", "'<3' in the prompt is read as plain text: no concept's name"),
        ("a dog -> a cat", "'>' in the prompt is read as plain text"),
        ("a <> dog", "'<>' in the prompt is read as plain text"),
    ],
)
def test_what_may_mean_something_else_is_told(prompt: str, said: str) -> None:
    read = understand(prompt, KNOWN)
    assert read.prompt == prompt
    assert said in " ".join(read.notes)


def test_another_case_is_read_as_the_concept_and_told() -> None:
    read = understand("a <Rex> dog and < MY-CUP >", KNOWN)
    assert read.prompt == "a <rex> dog and <my-cup>"
    assert read.notes == (
        "'<Rex>' in the prompt is read as <rex>",
        "'< MY-CUP >' in the prompt is read as <my-cup>",
    )


@pytest.mark.parametrize("typed", ["<<rex>>", "< rex >", "<rex>>", "<<  REX>", "<\nrex\n>"])
def test_brackets_around_brackets_or_blanks_are_no_letters(typed: str) -> None:
    read = understand(f"a {typed} dog", KNOWN)
    assert read.prompt == "a <rex> dog"
    assert read.notes == (f"{typed!r} in the prompt is read as <rex>",)


@pytest.mark.parametrize(
    "part", ["(", "((", "(a:", "{|", "__a", "<", "< a ", "[:", "lora:", "<a:", ">", "a>", " "]
)
def test_no_text_takes_long_to_read(part: str) -> None:
    text = (part * MAX_PROMPT)[: MAX_PROMPT - 1]
    try:
        understand(text, KNOWN)
    except BadPrompt as error:
        assert error.problems
