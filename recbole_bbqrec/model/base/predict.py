"""RecBole's ``predict`` for models that rank the whole catalogue at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PredictByRanking:
    """Goes before a RecBole model class; a candidate is scored as in ``full_sort_predict``."""

    ITEM_ID: str
    full_sort_predict: Any

    @torch.no_grad()
    def predict(self, interaction: Any) -> Tensor:
        """Score [B] of ``interaction[item_id]`` as the next item."""
        wanted = interaction[self.ITEM_ID].unsqueeze(1)
        return self.full_sort_predict(interaction).gather(1, wanted).squeeze(1)
