"""A byte-pair tokenizer for the world's captions, in CLIP's format: any prompt tokenizes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

CONTEXT = 32  # positions of the text encoder, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"  # marks the last piece of a word

Piece = tuple[str, ...]


def build_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """CLIPTokenizer with every word of the captions as one token; the rest falls back to bytes.

    Ids: 256 bytes, 256 word-final bytes, merges, start, end. The end has the *highest* id, and not
    2: transformers pools at the highest id when `eos_token_id` is 2. Padding is the end token, as
    in Stable Diffusion.
    """
    merges = learn_merges(Counter(word for caption in captions for word in caption.split()))
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [
        *alphabet,
        *(letter + SUFFIX for letter in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=merges,
        model_max_length=CONTEXT,
    )


def learn_merges(counts: Counter[str]) -> list[tuple[str, str]]:
    """Merge the most frequent neighbours (ties: alphabetical) until every word is one piece."""
    words: dict[Piece, int] = {(*word[:-1], word[-1] + SUFFIX): n for word, n in counts.items()}
    merges = []
    while pairs := _neighbours(words):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merged(word, best): n for word, n in words.items()}
    return merges


def _neighbours(words: dict[Piece, int]) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for word, n in words.items():
        for left, right in pairwise(word):
            pairs[left, right] += n
    return pairs


def _merged(word: Piece, pair: tuple[str, str]) -> Piece:
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Ids padded to CONTEXT, as StableDiffusionPipeline asks for them."""
    batch = tokenizer(list(prompts), padding="max_length", max_length=CONTEXT, truncation=True)
    return [list(row) for row in batch["input_ids"]]
