"""Beam search against the exact scores of all items, on a sample of the test users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.experiment.report_card.ranking import Ranking
from recbole_bbqrec.generator.inference.beam import beam_search
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.metrics.per_user_values import means, ranks, user_values

_USERS_PER_BATCH = 8  # exact scores of all items take much memory


@torch.no_grad()
def beam_against_exact(
    model: Any, sample: Ranking, names: Iterable[str], topk: Iterable[int]
) -> dict[str, Any]:
    """Compare the lists as evaluated, those of the same beam in float32, and the exact ones.

    The exact lists are computed in float32 too: the second and third differ by pruning alone, the
    first and second by rounding alone. ``sample`` has at least one user.
    """
    names, topk = list(names), list(topk)
    k = sample.items.shape[1]
    exact = torch.zeros_like(sample.items)
    beam = torch.zeros_like(sample.items)
    order = torch.argsort(sample.lengths, stable=True)
    for rows in order.split(_USERS_PER_BATCH):
        history = sample.histories[rows][:, : int(sample.lengths[rows].max())]
        history = history.to(model.codes.device)
        memory = model.generator.encode(model.catalogue, history)
        scores = exact_scores(model.generator, model.catalogue, memory)  # [b, n_items]
        items, item_scores = beam_search(model.generator, model.catalogue, memory, model.num_beams)
        if model.mask_history:
            scores = scores.scatter(1, history, -torch.inf)
            seen = (items.unsqueeze(2) == history.unsqueeze(1)).any(2)
            kept = item_scores.masked_fill(seen, -torch.inf)
            items = items.gather(1, kept.argsort(dim=1, descending=True, stable=True))
        # Stable: ties go to the lower item id, as in the beam.
        exact[rows] = scores.sort(dim=1, descending=True, stable=True).indices[:, :k].cpu()
        beam[rows] = items[:, :k].cpu()
    lists = {"as evaluated": sample.items, "float32": beam, "exact": exact}
    values = {
        name: means(user_values(ranks(items, sample.targets), names, topk))
        for name, items in lists.items()
    }
    inexact = ("as evaluated", "float32")
    return {
        "users": len(sample.targets),
        "k": k,
        "num_beams": model.num_beams,
        "precision": str(model.dtype).removeprefix("torch."),
        "overlap": {n: overlap(lists[n], exact) for n in inexact},
        "same_list": {n: float((lists[n] == exact).all(1).double().mean()) for n in inexact},
        "metrics": values,
    }


def overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean share of K items per row that two lists, int64 [n, K], have in common."""
    common = (first.unsqueeze(2) == second.unsqueeze(1)).any(2)  # [n, K]
    return float(common.double().mean())
