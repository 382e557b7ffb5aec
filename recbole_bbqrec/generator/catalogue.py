"""What the network is told about the items: their semantic IDs and vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.generator.trie import Trie


@dataclass(frozen=True)
class Catalogue:
    """Phase one's result in the form phase two uses; not part of the network's state.

    * ``codes``: int64 [n_items, L, M], row 0 unused.
    * ``vectors``: float32 [n_items, V] of unit length (zero rows stay zero), or None when the
      network has no similarity module.
    * ``trie``: the semantic IDs that may be generated.
    """

    codes: Tensor
    vectors: Tensor | None
    trie: Trie

    @classmethod
    def build(
        cls,
        codes: Tensor,
        vectors: Tensor | None,
        codebook_size: int,
        items: Tensor | None = None,
    ) -> Catalogue:
        """Normalise ``vectors`` [n_items, V] and index ``codes`` [n_items, L, M].

        ``items`` restricts what can be generated (default: all but [PAD]). Raises ValueError
        when the two disagree on n_items, and as :meth:`Trie.build` does.
        """
        if vectors is not None:
            if len(vectors) != len(codes):
                raise ValueError(f"{len(vectors)} item vectors but {len(codes)} semantic IDs")
            vectors = F.normalize(vectors, dim=-1)
        return cls(codes, vectors, Trie.build(codes, codebook_size, items))

    @cached_property
    def root_vectors(self) -> Tensor:
        """:meth:`mean_vectors` of all first-level nodes, kept: every training step maps them."""
        return self.mean_vectors(0, None)

    @torch.no_grad()
    def mean_vectors(self, level: int, nodes: Tensor | None) -> Tensor:
        """Mean vector of the items below each node: [k, V]; see :meth:`Trie.mean_below`.

        Raises ValueError when there are no vectors.
        """
        if self.vectors is None:
            raise ValueError("the item head needs item vectors; the catalogue has none")
        return self.trie.mean_below(level, nodes, self.vectors)

    @property
    def n_items(self) -> int:
        """Size of the vocabulary, [PAD] included."""
        return len(self.codes)

    def to(self, device: torch.device | str) -> Catalogue:
        """The same catalogue with its tensors on ``device``."""
        vectors = None if self.vectors is None else self.vectors.to(device)
        return Catalogue(self.codes.to(device), vectors, self.trie.to(device))
