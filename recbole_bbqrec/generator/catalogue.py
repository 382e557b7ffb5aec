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
    * ``features``: float32 [n_items, F], what else is known of the items, or None.
    """

    codes: Tensor
    vectors: Tensor | None
    trie: Trie
    features: Tensor | None = None

    @classmethod
    def build(
        cls,
        codes: Tensor,
        vectors: Tensor | None,
        codebook_size: int,
        items: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Catalogue:
        """Normalise ``vectors`` [n_items, V] and index ``codes`` [n_items, L, M].

        ``items`` restricts what can be generated (default: all but [PAD]); ``features``
        [n_items, F] are taken as they are. Raises ValueError when they disagree on n_items, and
        as :meth:`Trie.build` does.
        """
        for name, rows in (("vectors", vectors), ("features", features)):
            if rows is not None and len(rows) != len(codes):
                raise ValueError(f"{len(rows)} item {name} but {len(codes)} semantic IDs")
        if vectors is not None:
            vectors = F.normalize(vectors, dim=-1)
        return cls(codes, vectors, Trie.build(codes, codebook_size, items), features)

    def root_content(self, dtype: torch.dtype) -> Tensor:
        """:meth:`mean_content` of all first-level nodes: every training step maps it.

        Kept in the dtype last asked for; casting it anew would cost as much as a layer.
        """
        if dtype not in self._root_content:
            self._root_content.clear()
            self._root_content[dtype] = self.mean_content(0, None).to(dtype)
        return self._root_content[dtype]

    @cached_property
    def _root_content(self) -> dict[torch.dtype, Tensor]:
        return {}

    @torch.no_grad()
    def mean_content(self, level: int, nodes: Tensor | None) -> Tensor:
        """Mean features, or else vectors, of the items below each node: [k, F] or [k, V].

        See :meth:`Trie.mean_below`. Raises ValueError when there are neither.
        """
        content = self.vectors if self.features is None else self.features
        if content is None:
            raise ValueError("the item head needs item vectors or features; there are none")
        return self.trie.mean_below(level, nodes, content)

    @property
    def n_items(self) -> int:
        """Size of the vocabulary, [PAD] included."""
        return len(self.codes)

    def to(self, device: torch.device | str) -> Catalogue:
        """The same catalogue with its tensors on ``device``."""
        vectors, features = (
            None if rows is None else rows.to(device) for rows in (self.vectors, self.features)
        )
        return Catalogue(self.codes.to(device), vectors, self.trie.to(device), features)
