"""The decoder's rows: the first few levels of each sequence, laid end to end."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.network.attention import (
    attend,
    blocking_bias,
    merge_heads,
    split_heads,
)
from recbole_bbqrec.nn.transfer import send


class Steps:
    """Layout of the R rows of n sequences of up to l levels.

    * ``grid``: in a [n, l] grid, filled from the left.
    * ``cells``: in a [B, W] grid that holds all rows of a history side by side; W is the largest
      number of them.
    """

    def __init__(self, slots: Packing, depth: Tensor, levels: int) -> None:
        """Lay out ``depth`` int64 [n], in 1 .. ``levels``, rows of each packed slot of a grid."""
        self.levels, self.depth = levels, depth
        level = torch.arange(levels, device=depth.device)
        total = slots.unpack(depth).sum(1)  # [B]
        place = torch.arange(int(total.max()), device=depth.device)
        self.grid = Packing(level < depth[:, None])
        self.cells = Packing(place < total[:, None])
        if self.grid.index is not None:
            own = self.grid.index % levels  # int64 [R], the level of each row
            # A first level sees only itself, so its value is the result.
            self.later = own.nonzero().squeeze(1)  # int64 [r]
            own = own[self.later].unsqueeze(1)
            self.hidden = level > own  # bool [r, l]
            self.keys = (self.later.unsqueeze(1) - own + level).masked_fill_(self.hidden, 0)

    def to(self, device: torch.device) -> Steps:
        """Return the same layout on ``device``; the CPU does not wait."""
        moved = copy(self)
        vars(moved).update({name: send(value, device) for name, value in vars(self).items()})
        return moved

    def attend(self, qkv: Tensor, n_heads: int) -> Tensor:
        """Attend causally among the levels of each sequence: [R, 3 * d] -> [R, d]."""
        if self.grid.index is None:
            parts = self.grid.unpack(qkv).chunk(3, dim=-1)
            q, k, v = (split_heads(part, n_heads) for part in parts)  # [n, H, l, C]
            seen = torch.ones(self.levels, self.levels, dtype=torch.bool, device=qkv.device).tril()
            return self.grid.pack(merge_heads(attend(q, k, v, blocking_bias(seen, q.dtype))))
        with torch.autocast(qkv.device.type, enabled=False):
            return self._attend_later(qkv, n_heads)

    def _attend_later(self, qkv: Tensor, n_heads: int) -> Tensor:
        """Multiply by element, in float32 or wider: l-row matrix products are mostly overhead."""
        wide = torch.promote_types(qkv.dtype, torch.float32)
        q, k, v = qkv.chunk(3, dim=-1)
        by_head = (n_heads, q.shape[-1] // n_heads)
        query = q.index_select(0, self.later).to(wide).unflatten(1, by_head)  # [r, H, C]
        keys, values = (
            part.index_select(0, self.keys.flatten()).to(wide).view(*self.keys.shape, *by_head)
            for part in (k, v)
        )  # [r, l, H, C]
        scores = ((query * by_head[1] ** -0.5).unsqueeze(1) * keys).sum(-1)  # [r, l, H]
        weights = scores.masked_fill(self.hidden.unsqueeze(-1), -torch.inf).softmax(1)
        mixed = (weights.unsqueeze(-1) * values).sum(1).flatten(1)  # [r, d]
        return v.index_copy(0, self.later, mixed.to(v.dtype))
