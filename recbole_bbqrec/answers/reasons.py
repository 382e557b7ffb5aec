"""Reasons for a recommendation: the nearest items of the history, and shared signals.

Nearness is the cosine of the vectors that the model itself holds: the phase-one vectors of a
generative model, else the item embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.answers.recommender import Recommender
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base.generative import GenerativeRecommender


class Reasons:
    """Explains recommendations of one model.

    Raises:
        UserError: the model holds no vector of an item.
    """

    def __init__(self, recommender: Recommender, nearest: int = 2) -> None:
        self.recommender, self.nearest = recommender, nearest
        model = recommender.model
        self.codes: Tensor | None = None
        self.signals: Sequence[str] = ()
        if isinstance(model, GenerativeRecommender):
            vectors: Tensor = model.vectors
            self.codes, self.signals = model.codes, model.signals_of(recommender.config)
        else:
            vectors = _embedding(model, recommender)
        self.vectors = F.normalize(vectors.detach().float(), dim=1)

    def explain(self, items: np.ndarray, histories: Sequence[np.ndarray]) -> list[list[str]]:
        """Return a text for each of ``items`` int64 [n, k] after its history, "" for item 0.

        It reads "i0398 (similarity 0.91, codes text 2/3, neighbour 1.20); i0395 (...)".
        """
        return [
            [self._text(item, history) if item > 0 else "" for item in row]
            for row, history in zip(items.tolist(), histories)
        ]

    def _text(self, item: int, history: np.ndarray) -> str:
        others = torch.from_numpy(np.unique(history[history > 0]))
        close = self.vectors[others] @ self.vectors[item]  # [S]
        best = close.topk(min(self.nearest, len(others))).indices
        tokens = self.recommender.item_tokens
        parts = []
        for place in best.tolist():
            other = int(others[place])
            facts = [f"similarity {float(close[place]):.2f}", *self._shared(item, other)]
            parts.append(f"{tokens[other]} ({', '.join(facts)})")
        return "; ".join(parts)

    def _shared(self, item: int, other: int) -> list[str]:
        facts = ["same item"] if item == other else []
        if self.codes is not None and item != other:
            same = (self.codes[item] == self.codes[other]).long()  # [L, M]
            counts = same.cumprod(0).sum(0).tolist()  # first levels in common, by signal
            levels = len(same)
            facts += [
                f"codes {name} {count}/{levels}"
                for name, count in zip(self.signals, counts)
                if count
            ]
        near = getattr(self.recommender.model, "neighbours", None)
        if near is not None and hasattr(near, "pointer"):
            entries = slice(int(near.pointer[other]), int(near.pointer[other + 1]))
            found = near.items[entries] == item
            if bool(found.any()):
                facts.append(f"neighbour {float(near.values[entries][found][0]):.2f}")
        return facts


def _embedding(model: Any, recommender: Recommender) -> Tensor:
    for name in ("item_embedding", "item_embeddings", "item_emb"):
        table = getattr(model, name, None)
        if isinstance(table, nn.Embedding) and len(table.weight) >= recommender.n_items:
            return table.weight[: recommender.n_items]
    raise UserError(
        f"--explain needs vectors of the items, and {recommender.config['model']} holds none by "
        "item. Leave it out, or use a generative model."
    )
