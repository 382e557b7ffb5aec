"""Facts of the items that the network reads: semantic IDs, vectors, features, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.items.trie import Trie


@dataclass(frozen=True)
class Catalogue:
    """Phase one's result in the form phase two uses; not part of the network's state.

    * ``codes``: int64 [n_items, L, M], row 0 unused.
    * ``vectors``: float32 [n_items, V] of unit length (zero rows stay zero), or None when the
      network has no similarity module.
    * ``trie``: the semantic IDs that may be generated.
    * ``features``: float32 [n_items, F], read beside the semantic IDs, or None.
    * ``neighbours``: pairs of close items, for the item head, or None.

    Phase one made ``codes`` and ``vectors``; ``features`` come from the modalities themselves, and
    ``neighbours`` from modalities and training histories.
    """

    codes: Tensor
    vectors: Tensor | None
    trie: Trie
    features: Tensor | None = None
    neighbours: Neighbours | None = None

    @classmethod
    def build(
        cls,
        codes: Tensor,
        vectors: Tensor | None,
        codebook_size: int,
        items: Tensor | None = None,
        features: Tensor | None = None,
        neighbours: Neighbours | None = None,
    ) -> Catalogue:
        """Normalise ``vectors`` [n_items, V] and index ``codes`` [n_items, L, M].

        ``items`` restricts what can be generated (default: all but [PAD]); ``features``
        [n_items, F] and ``neighbours`` are taken as they are. Raises ValueError when they disagree
        on n_items, and as :meth:`Trie.build` does.
        """
        near = None if neighbours is None else neighbours.pointer[1:]
        for name, rows in (("vectors", vectors), ("features", features), ("neighbours", near)):
            if rows is not None and len(rows) != len(codes):
                raise ValueError(f"{len(rows)} item {name} but {len(codes)} semantic IDs")
        if vectors is not None:
            vectors = F.normalize(vectors, dim=-1)
        return cls(codes, vectors, Trie.build(codes, codebook_size, items), features, neighbours)

    def content(self, dtype: torch.dtype, held: Tensor | None = None) -> Tensor:
        """Return features, or else vectors, of the trie's items: [I, F] or [I, V], by leaf.

        Every training step maps them, so the last dtype's are kept: casting costs as much as a
        layer. With ``held`` int64 [K], of the items at these places, and nothing is kept. Raises
        ValueError when there are neither.
        """
        known = self.vectors if self.features is None else self.features
        if known is None:
            raise ValueError("the item head needs item vectors or features; there are none")
        if held is not None:
            return known[self.trie.leaf_items[held]].to(dtype)
        if dtype not in self._content:
            self._content.clear()
            with torch.inference_mode(False), torch.no_grad():  # training may read it afterwards
                self._content[dtype] = known[self.trie.leaf_items].to(dtype)
        return self._content[dtype]

    @cached_property
    def _content(self) -> dict[torch.dtype, Tensor]:
        return {}

    @cached_property
    def trie_on_cpu(self) -> Trie:
        """The trie, where the indices of a training batch are found."""
        return self.trie.to("cpu")

    @cached_property
    def placed_neighbours(self) -> Neighbours | None:
        """The neighbours by their place in ``trie.leaf_items``; None without."""
        with torch.inference_mode(False):
            near = self.neighbours
            return None if near is None else near.placed(self.trie.item_places)

    @property
    def n_items(self) -> int:
        """Size of the vocabulary, [PAD] included."""
        return len(self.codes)

    def to(self, device: torch.device | str) -> Catalogue:
        """Return the same catalogue with its tensors on ``device``."""
        vectors, features = (
            None if rows is None else rows.to(device) for rows in (self.vectors, self.features)
        )
        neighbours = None if self.neighbours is None else self.neighbours.to(device)
        return Catalogue(self.codes.to(device), vectors, self.trie.to(device), features, neighbours)
