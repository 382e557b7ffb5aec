"""RecBole's Collector, faster for score matrices, and one for ranked items without scores."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_bbqrec.distributed.group import gathered, running
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.nn.topk import best_of_rows


class _Batches(DataStruct):
    """Values that this process collected, by batch; others have the batches between."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[str, list[Tensor]] = {}

    def update_tensor(self, name: str, value: Tensor) -> None:
        """Add a batch."""
        self.batches.setdefault(name, []).append(value.detach().cpu())

    def of_all(self) -> DataStruct:
        """Return the batches of all processes, in the order of the loader."""
        everyones = gathered(self.batches)
        struct = DataStruct()
        for name in everyones[0]:  # process 0 has the first batch
            rounds = zip_longest(*(batches.get(name, []) for batches in everyones))
            struct.set(name, torch.cat([b for turn in rounds for b in turn if b is not None]))
        return struct


_ALL_SCORES = ("rec.meanrank", "rec.score", "data.label")  # need the scores of all items


class _TopCollector(Collector):
    """Collects the top of each user's ranking, and the training data, for the evaluator."""

    data_struct: DataStruct

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._counts: dict[str, Any] = {}
        self.data_struct = self._empty()

    def data_collect(self, train_data: Any) -> None:
        """Collect the counts in the training data that metrics such as ItemCoverage need.

        They are kept apart from the tensors: RecBole moves everything collected to the CPU before
        it measures, and fails on numbers and tables.
        """
        super().data_collect(train_data)
        self._counts = self.data_struct._data_dict
        self.data_struct = self._empty()

    def _empty(self) -> DataStruct:
        return _Batches() if running() else DataStruct()

    def forget(self) -> None:
        """Drop the batches collected so far."""
        self.data_struct = DataStruct()

    def get_data_struct(self) -> DataStruct:
        if isinstance(self.data_struct, _Batches):
            struct = self.data_struct.of_all()
            self.data_struct = self._empty()
        else:
            struct = super().get_data_struct()
        struct._data_dict.update(self._counts)
        return struct

    def collect_top(self, top: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """Collect one batch: items int64 [B, max(topk)]; row and item of each positive [P]."""
        if self.register.need("rec.items"):
            self.data_struct.update_tensor("rec.items", top)
        if self.register.need("rec.topk"):
            rows = positive_u.to(top.device)
            match = top[rows] == positive_i.to(top.device).unsqueeze(1)  # [P, k]
            hits = torch.zeros_like(top, dtype=torch.int).index_add_(0, rows, match.int())
            counts = torch.bincount(rows, minlength=len(top)).unsqueeze(1).int()  # [B, 1]
            self.data_struct.update_tensor("rec.topk", torch.cat([hits, counts], dim=1))


class ScoresCollector(_TopCollector):
    """Same results as RecBole's Collector, in less time, for models that score all items.

    RecBole searches whole rows, and fills a second [B, n_items] matrix for one positive per row.
    """

    def eval_batch_collect(
        self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch: scores [B, n_items]; RecBole's signature otherwise."""
        if any(self.register.need(need) for need in _ALL_SCORES):
            super().eval_batch_collect(scores, interaction, positive_u, positive_i)
        else:
            self.collect_top(best_items(scores, max(self.topk)), positive_u, positive_i)


def best_items(scores: Tensor, k: int) -> Tensor:
    """Return ``scores.topk(k).indices``, same order of ties included: [B, n] -> int64 [B, k].

    Raises:
        RuntimeError: there are fewer than k columns.
    """
    if scores.device.type != "cpu" or scores.shape[1] <= k:
        return scores.topk(k, dim=1).indices
    values, items = best_of_rows(scores, k + 1)
    values, order = values.sort(1, descending=True)
    top = items.gather(1, order)[:, :k]
    # topk's choice among equal scores is undocumented: leave rows with ties to it.
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(tied):
        top[tied] = scores[tied].topk(k, dim=1).indices
    return top


class RankedCollector(_TopCollector):
    """Collects ranked item ids, so that no [B, n_items] matrix is needed.

    Raises:
        UserError: a metric needs the scores of all items.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for need in _ALL_SCORES:
            if self.register.need(need):
                raise UserError(
                    f"Option `metrics` is {config['metrics']}; one of them needs the scores of all "
                    "items, which a generative model does not compute. Use ranking metrics such as "
                    "Recall, NDCG, Hit, MRR, Precision, MAP."
                )

    def eval_batch_collect(
        self,
        ranked_items: Tensor,
        interaction: Interaction,
        positive_u: Tensor,
        positive_i: Tensor,
    ) -> None:
        """Collect one batch.

        Args:
            ranked_items: int64 [B, K], best first, K >= max(topk), ids of existing items.
            interaction: unused; RecBole's signature.
            positive_u, positive_i: int64 [P]: row and item of each positive.
        """
        self.collect_top(ranked_items[:, : max(self.topk)], positive_u, positive_i)
