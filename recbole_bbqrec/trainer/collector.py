"""RecBole's Collector for models that rank: it takes item ids instead of a score matrix."""

from __future__ import annotations

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector

from recbole_bbqrec.errors import UserError

_SUPPORTED = ("rec.topk", "rec.items", "data.")


class RankedCollector(Collector):
    """Fills RecBole's evaluator from ranked ids, so that no [B, n_items] matrix exists.

    Raises:
        UserError: a metric needs the scores of all items.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for need in ("rec.meanrank", "rec.score", "data.label"):
            if self.register.need(need):
                raise UserError(
                    f"Option `metrics` is {config['metrics']}; one of them needs the scores of all "
                    "items, which a generative model does not compute. Use ranking metrics such as "
                    "Recall, NDCG, Hit, MRR, Precision, MAP."
                )

    def eval_batch_collect(
        self,
        ranked_items: torch.Tensor,
        interaction: Interaction,
        positive_u: torch.Tensor,
        positive_i: torch.Tensor,
    ) -> None:
        """Collect one batch.

        Args:
            ranked_items: int64 [B, K], best first, K >= max(topk), ids of existing items.
            interaction: unused; RecBole's signature.
            positive_u, positive_i: int64 [P]: row and item of each positive.
        """
        k = max(self.topk)
        top = ranked_items[:, :k]
        if self.register.need("rec.items"):
            self.data_struct.update_tensor("rec.items", top)
        if self.register.need("rec.topk"):
            rows = positive_u.to(top.device)
            match = top[rows] == positive_i.to(top.device).unsqueeze(1)  # [P, k]
            hits = torch.zeros_like(top, dtype=torch.int).index_add_(0, rows, match.int())
            counts = torch.bincount(rows, minlength=len(top)).unsqueeze(1).int()  # [B, 1]
            self.data_struct.update_tensor("rec.topk", torch.cat([hits, counts], dim=1))
