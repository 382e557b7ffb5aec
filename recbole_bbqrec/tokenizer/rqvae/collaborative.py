"""Item embeddings learned from behaviour alone, by a small SASRec on the training histories.

Reference: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, with
cross-entropy over all items.
"""

from __future__ import annotations

from collections.abc import Iterator
from logging import getLogger
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.distributed import sums
from recbole_bbqrec.nn import optim
from recbole_bbqrec.tokenizer.sequence_encoders import SelfAttentionEncoder

_LOG_EVERY = 10  # epochs


class HistoryBatchLike(Protocol):
    """Right-padded histories, and at each position the next item (0 for none)."""

    @property
    def items(self) -> Tensor:
        """int64 [B, T]."""

    @property
    def targets(self) -> Tensor:
        """int64 [B, T]."""

    @property
    def share(self) -> float:
        """Share of the batch's targets that these rows have."""

    def mine(self) -> HistoryBatchLike:
        """Return the rows that this process trains on."""


class HistorySource(Protocol):
    """Batches of an epoch, by its index."""

    def __len__(self) -> int: ...

    def epoch(self, epoch_index: int) -> Iterator[HistoryBatchLike]: ...


class NextItemModel(nn.Module):
    """Causal self-attention over item embeddings, scored by dot product with the same table."""

    def __init__(
        self, n_items: int, dim: int, *, hidden: int, layers: int, heads: int, max_history: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.items = nn.Embedding(n_items, dim)
        nn.init.normal_(self.items.weight, std=0.02)
        self.encoder = SelfAttentionEncoder(dim, hidden, layers, heads, max_history, dropout)

    def forward(self, items: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the positions with a target; items, targets int64 [B, T]."""
        valid = targets > 0  # [B, T]
        states = self.encoder(self.items(items), items)[valid]  # [P, D]
        scores = states @ self.items.weight[1:].T  # [P, n_items - 1]; [PAD] is no candidate
        return F.cross_entropy(scores.float(), targets[valid] - 1)


def fit_item_embeddings(
    model: NextItemModel, histories: HistorySource, *, epochs: int, learning_rate: float
) -> Tensor:
    """Train ``model`` and return its item embeddings float32 [n_items, D], row 0 zero.

    Adam with cosine decay to zero. Items in no history keep their random vector.
    """
    device = model.items.weight.device
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    # Not optim.cosine_schedule, which rounds differently: LETTER's metrics would change.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(histories))
    model.train()
    for epoch in range(epochs):
        total = torch.zeros((), device=device)
        for whole in histories.epoch(epoch):
            batch = whole.mine()
            loss = model(batch.items.to(device), batch.targets.to(device)) * batch.share
            optim.step(loss, model, optimizer, schedule=schedule)
            total += loss.detach()
        if (epoch + 1) % _LOG_EVERY == 0 or epoch + 1 == epochs:
            mean = float(sums.total(total)) / len(histories)
            getLogger().info(f"collaborative embeddings: epoch {epoch} loss {mean:.4g}")
    embeddings = model.items.weight.detach().float().clone()
    embeddings[0] = 0
    return embeddings
