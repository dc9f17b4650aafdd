from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from l2dm.pocket.train.clip import build, text_half
from l2dm.pocket.train.tokenizer import CONTEXT, build_tokenizer, learn_merges, token_ids
from l2dm.pocket.world.render_cache import render

CAPTIONS = [caption for row in render("tokenizer", range(60)).captions for caption in row]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer(CAPTIONS)


def test_merges_of_two_words_by_hand() -> None:
    # "ab" twice and "abc" once: (a, b</w>) has 2, (a, b) and (b, c</w>) have 1 each;
    # of the two, (a, b) comes first, and then (ab, c</w>) completes the longer word.
    merges = learn_merges(Counter({"ab": 2, "abc": 1}))
    assert merges == [("a", "b</w>"), ("a", "b"), ("ab", "c</w>")]


def test_every_word_of_the_world_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in {word for caption in CAPTIONS for word in caption.split()}:
        assert len(tokenizer.tokenize(word)) == 1


@pytest.mark.parametrize(
    "prompt", ["", "a zebra", "żółw", "犬 🙂", "a\tb\n c", "!!!", "x" * 500, "'s <v>", "\u200b"]
)
def test_any_prompt_tokenizes(tokenizer: CLIPTokenizer, prompt: str) -> None:
    (ids,) = token_ids(tokenizer, [prompt])
    assert len(ids) == CONTEXT
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id in ids
    assert max(ids) < len(tokenizer)


def test_unknown_words_survive_a_round_trip(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a żółw 犬").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a żółw 犬"


def test_end_has_the_highest_id_not_two_and_pads(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.eos_token_id != 2


def test_text_is_pooled_at_its_end_also_after_a_new_word(tokenizer: CLIPTokenizer) -> None:
    torch.manual_seed(0)
    clip = build(tokenizer).eval()
    ids = torch.tensor(token_ids(tokenizer, ["a red dog", "a photo of a blue and white cup"]))
    with torch.no_grad():
        out = text_half(clip)(ids)
    ends = [4, 9]  # start, then three and eight words
    for row, end in enumerate(ends):
        assert torch.equal(out.pooler_output[row], out.last_hidden_state[row, end])
    # A learned word has a higher id than the end: the legacy path would pool there.
    half = text_half(clip)
    half.resize_token_embeddings(len(tokenizer) + 1, mean_resizing=False)
    ids[0, 2] = len(tokenizer)
    with torch.no_grad():
        out = half(ids)
    assert torch.equal(out.pooler_output[0], out.last_hidden_state[0, 4])


def test_saved_tokenizer_and_text_half_load_again(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    half = text_half(build(tokenizer).eval())
    tokenizer.save_pretrained(tmp_path)
    half.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor(token_ids(loaded, ["a zebra"]))
    assert ids.tolist() == token_ids(tokenizer, ["a zebra"])
    with torch.no_grad():
        a, b = half(ids), CLIPTextModel.from_pretrained(tmp_path)(ids)
    assert torch.equal(a.last_hidden_state, b.last_hidden_state)
