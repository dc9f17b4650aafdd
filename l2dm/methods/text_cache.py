"""Text features during training: those that nothing trainable can change are computed once."""

from collections.abc import Sequence

import torch

from l2dm.bases.model import Model
from l2dm.bases.prompts import placeholders_in
from l2dm.bases.text import Text, concatenate


class Reading:
    """Reads prompts for one task; `learning` is the concept whose row trains.

    Prompts that do not name it are encoded once and kept, unless the adapter moves the text
    encoder itself.
    """

    def __init__(self, model: Model, learning: str) -> None:
        self._model = model
        self._learning = learning
        self._kept: dict[str, Text] = {}

    def __call__(self, prompts: Sequence[str]) -> Text:
        """Encoded prompts, with gradient where something trains."""
        unique = list(dict.fromkeys(prompts))
        moving = [prompt for prompt in unique if self._moves(prompt)]
        fresh = self._model.read(moving) if moving else None
        rows = {prompt: index for index, prompt in enumerate(moving)}
        parts = [
            fresh[[rows[prompt]]] if fresh and prompt in rows else self._constant(prompt)
            for prompt in unique
        ]
        place = {prompt: index for index, prompt in enumerate(unique)}
        return concatenate(parts)[[place[prompt] for prompt in prompts]]

    def _moves(self, prompt: str) -> bool:
        return self._model.adapter.changes_text or self._learning in placeholders_in(prompt)

    def _constant(self, prompt: str) -> Text:
        if prompt not in self._kept:
            with torch.no_grad():
                self._kept[prompt] = self._model.read([prompt])
        return self._kept[prompt]
