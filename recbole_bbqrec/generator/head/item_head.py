"""The item head: scores of whole items, which :mod:`.item_scores` spreads over the trie."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.head.item_scores import ItemScores, product_dtype
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.dropout import Dropout

# Scale the logits of repeats by 10, so that Adam can learn them in few steps.
_REPEAT_SCALE = 10.0


class Embedding(Protocol):
    """Item embeddings e, or nothing in their place."""

    def add_to(self, x: Tensor, items: Tensor) -> Tensor:
        """Return ``x`` [n, d] plus the embeddings of ``items`` int64 [n]."""


class ItemHead(nn.Module):
    """Scores every item by its embedding e and its content f: h . (e_i + W f_i) + r."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        width = config.feature_dim or config.vector_dim
        self.content = nn.Linear(width, config.hidden_size, bias=False)  # W
        self.repeat: RepeatLogits | NoRepeat
        self.repeat = (RepeatLogits if config.repeat_logit else NoRepeat)(config.max_history)
        self.dropout = Dropout(config.dropout)  # of states and decoder rows

    def keys(
        self, catalogue: Catalogue, embedding: Embedding, held: Tensor | None = None
    ) -> Tensor:
        """Return e_i + W f_i of the trie's items: [I, d], in the order of ``leaf_items``.

        With ``held`` int64 [K], of the items at these places: [K, d].

        Raises ValueError when the catalogue has neither features nor vectors.
        """
        content = self.content(catalogue.content(product_dtype(self.content.weight), held))
        items = catalogue.trie.leaf_items
        return embedding.add_to(content, items if held is None else items[held])

    def at_targets(
        self,
        catalogue: Catalogue,
        memory: Memory,
        rows: Tensor,
        last: Tensor,
        embedding: Embedding,
        held: Tensor | None = None,
    ) -> ItemScores | None:
        """Return the scores after the items at ``rows``, ``last`` int64 [n], for training.

        With ``held`` int64 [K] the keys are those of these places alone.
        """
        states = memory.cells.unpack(memory.states[:, -1])[rows, last]  # [n, d]
        return ItemScores.of(
            catalogue.trie,
            self.keys(catalogue, embedding, held),
            self.dropout(states),
            self.repeat(),
            memory.items[rows],
            last,
            held,
        )

    def at_end(
        self, catalogue: Catalogue, memory: Memory, embedding: Embedding
    ) -> ItemScores | None:
        """Return the scores after the last item of each history, for inference."""
        keys = self.keys(catalogue, embedding)
        return ItemScores.at_end(catalogue, keys, self.repeat(), memory)


class NoItemHead(nn.Module):
    """Stands in for :class:`ItemHead` where codes alone are scored."""

    def __init__(self) -> None:
        super().__init__()
        self.content, self.dropout = nn.Identity(), nn.Identity()

    def keys(
        self, catalogue: Catalogue, embedding: Embedding, held: Tensor | None = None
    ) -> Tensor:
        """Raise ValueError: there are no keys."""
        raise ValueError("the generator was built without item_head")

    def at_targets(
        self,
        catalogue: Catalogue,
        memory: Memory,
        rows: Tensor,
        last: Tensor,
        embedding: Embedding,
        held: Tensor | None = None,
    ) -> ItemScores | None:
        """Return None."""
        return None

    def at_end(
        self, catalogue: Catalogue, memory: Memory, embedding: Embedding
    ) -> ItemScores | None:
        """Return None."""
        return None


class RepeatLogits(nn.Module):
    """Learned logits r of items that are in the history, by how many items ago they were."""

    def __init__(self, max_history: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(max_history))

    def forward(self) -> Tensor:
        """Return r, the last item's first: [max_history]."""
        return self.logits * _REPEAT_SCALE


class NoRepeat(nn.Module):
    """Stands in for :class:`RepeatLogits`: r is zero."""

    zeros: Tensor

    def __init__(self, max_history: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(max_history), persistent=False)

    def forward(self) -> Tensor:
        """Return zeros [max_history]."""
        return self.zeros
