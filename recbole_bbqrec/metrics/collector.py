"""RecBole's Collector without its search through every score, or without scores at all."""

from __future__ import annotations

from typing import Any

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.nn.topk import best_of_rows

_ALL_SCORES = ("rec.meanrank", "rec.score", "data.label")  # what a ranking does not give


class _TopCollector(Collector):
    """What the evaluator needs of the top of each user's ranking, and of the training data."""

    data_struct: DataStruct

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._counts: dict[str, Any] = {}

    def data_collect(self, train_data: Any) -> None:
        """Collect what metrics such as ItemCoverage count in the training data.

        Kept apart from the tensors: RecBole moves all that it has collected to the CPU before it
        measures, and fails on these numbers and tables.
        """
        super().data_collect(train_data)
        self._counts = self.data_struct._data_dict
        self.data_struct = DataStruct()

    def get_data_struct(self) -> DataStruct:
        struct: DataStruct = super().get_data_struct()
        struct._data_dict.update(self._counts)
        return struct

    def collect_top(self, top: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """Collect one batch: items int64 [B, max(topk)], rows and items of the positives [P]."""
        if self.register.need("rec.items"):
            self.data_struct.update_tensor("rec.items", top)
        if self.register.need("rec.topk"):
            rows = positive_u.to(top.device)
            match = top[rows] == positive_i.to(top.device).unsqueeze(1)  # [P, k]
            hits = torch.zeros_like(top, dtype=torch.int).index_add_(0, rows, match.int())
            counts = torch.bincount(rows, minlength=len(top)).unsqueeze(1).int()  # [B, 1]
            self.data_struct.update_tensor("rec.topk", torch.cat([hits, counts], dim=1))


class ScoresCollector(_TopCollector):
    """For models that score all items: the same as RecBole's Collector, sooner.

    RecBole searches every row whole and lays out a second matrix to count one item of each.
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
    """What ``scores.topk(k).indices`` is, order of equal scores included: [B, n] -> int64 [B, k].

    Raises:
        RuntimeError: there are fewer than k columns.
    """
    if scores.device.type != "cpu" or scores.shape[1] <= k:
        return scores.topk(k, dim=1).indices
    values, items = best_of_rows(scores, k + 1)
    values, order = values.sort(1, descending=True)
    top = items.gather(1, order)[:, :k]
    # Which of equal scores topk takes, and in what order, only topk knows.
    unclear = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    if len(unclear):
        top[unclear] = scores[unclear].topk(k, dim=1).indices
    return top


class RankedCollector(_TopCollector):
    """Fills RecBole's evaluator from ranked ids, so that no [B, n_items] matrix exists.

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
