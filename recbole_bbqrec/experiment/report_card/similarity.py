"""The similarity module: frequency of its buckets, and its learned gates."""

from __future__ import annotations

from typing import Any

import torch

from recbole_bbqrec.experiment.report_card.ranking import Ranking
from recbole_bbqrec.generator.network.attention import similarity_buckets

_ROWS = 512  # histories per batch of item pairs


@torch.no_grad()
def similarity_profile(model: Any, ranking: Ranking) -> dict[str, Any] | None:
    """Count the buckets of item pairs in the histories (Eq. 15) and summarise the gates (Eq. 17).

    Pairs are of two different positions that the attention can see. Gates are given per encoder
    layer: mean over the channels and the range of the middle 80 %. Returns None if the model has
    no similarity module.
    """
    settings = getattr(getattr(model, "generator", None), "config", None)
    if settings is None or not settings.similarity:
        return None
    n_buckets = settings.similarity_buckets
    counts = torch.zeros(n_buckets + 1, dtype=torch.int64)
    vectors = model.catalogue.vectors
    for histories in ranking.histories.split(_ROWS):
        items = histories.to(vectors.device)
        buckets = similarity_buckets(vectors[items], n_buckets)  # [b, T, T]
        valid = items > 0
        seen = (valid.unsqueeze(2) & valid.unsqueeze(1)).tril(-1)
        if settings.history_encoding == "bidirectional":
            seen = seen | seen.transpose(1, 2)
        counts += torch.bincount(buckets[seen].cpu(), minlength=n_buckets + 1)
    layers = []
    for layer in model.generator.encoder.layers:
        table = layer.gate.table.detach().float().cpu()  # [K + 1, d]
        low, high = torch.quantile(table, torch.tensor([0.1, 0.9]), dim=1)
        layers.append({"mean": table.mean(1).tolist(), "low": low.tolist(), "high": high.tolist()})
    return {
        "buckets": n_buckets,
        "users": len(ranking.targets),
        "pairs": int(counts.sum()),
        "counts": counts.tolist(),
        "gates": layers,
    }
