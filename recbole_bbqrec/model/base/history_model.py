"""Base of single-phase models that train on whole histories, not on one row per prefix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.model.base.checks import require_whole_histories
from recbole_bbqrec.model.base.length_groups import length_groups
from recbole_bbqrec.model.baseline_settings import EncoderSettings
from recbole_bbqrec.model.settings import HistoryTrainingSettings
from recbole_bbqrec.nn.transformer import CausalEncoder
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.runtime import autocast, resolve_precision
from recbole_bbqrec.settings import read

_USERS = 512  # histories in one pass when ranking


class PredictByRanking:
    """Base to put before a RecBole model class; scores candidates by ``full_sort_predict``."""

    ITEM_ID: str
    full_sort_predict: Any

    @torch.no_grad()
    def predict(self, interaction: Any) -> Tensor:
        """Return the score [B] of ``interaction[item_id]`` as the next item."""
        candidates = interaction[self.ITEM_ID].unsqueeze(1)
        return self.full_sort_predict(interaction).gather(1, candidates).squeeze(1)


class HistoryRecommender(PredictByRanking, SequentialRecommender):
    """A model that maps histories to states and scores every item against a state.

    Trained by ``HistoryTrainer``. With ``encoding = "causal"`` the state at position t must
    depend on items 0..t alone, so that one pass over a user trains all prefixes; with
    ``"bidirectional"`` every prefix is a row and only its last state is trained.
    """

    input_type = InputType.POINTWISE  # rows are (history, next item); no sampled negatives
    encoding = "causal"
    adam_betas = (0.9, 0.999)  # of the optimizer
    settings_class: type[EncoderSettings] = EncoderSettings
    settings: EncoderSettings

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        self.settings = read(self.settings_class, config)
        precision = read(HistoryTrainingSettings, config).precision
        self.dtype = resolve_precision(precision, torch.device(config["device"]))

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
        require_whole_histories(config, cls.__name__)
        read(cls.settings_class, config)
        read(HistoryTrainingSettings, config)

    def causal_encoder(self, input_norm: bool = True, **options: bool) -> CausalEncoder:
        """Make the encoder that the settings describe, with further options of the model's own."""
        return CausalEncoder(
            hidden=self.settings.hidden_size,
            layers=self.settings.encoder_layers,
            heads=self.settings.n_heads,
            inner=self.settings.inner_size,
            max_length=self.settings.max_history,
            dropout=self.settings.dropout,
            input_norm=input_norm,
            attention_dropout=self.settings.attention_dropout,
            **options,
        )

    # hooks of a subclass --------------------------------------------------------------------

    def states(self, items: Tensor) -> Tensor:
        """Encode items int64 [B, T], right padded with 0 -> states [B, T, H]."""
        raise NotImplementedError

    def item_logits(self, states: Tensor) -> Tensor:
        """Score states [P, H] -> logits [P, n_items - 1]; item i is in column i - 1, no [PAD]."""
        raise NotImplementedError

    def target_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target: states [P, H], targets int64 [P] -> float32 [P].

        By default cross-entropy over all items.
        """
        return F.cross_entropy(self.item_logits(states).float(), targets - 1, reduction="none")

    def start_epoch(self, epoch: int) -> None:
        """Prepare a training epoch (from 0); the trainer calls it."""

    # training -------------------------------------------------------------------------------

    def history_loss(self, batch: HistoryBatch) -> Tensor:
        """Return the mean loss over the targets of a batch, a scalar."""
        with autocast(self.dtype, batch.items.device):
            mask = batch.targets > 0  # [B, T]
            states = self.states(batch.items)[mask]  # [P, H]
            return self.target_loss(states, batch.targets[mask]).mean()

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the loss of RecBole's rows, each one (history, next item) pair."""
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        targets = torch.zeros_like(items)
        targets[torch.arange(len(items)), lengths - 1] = interaction[self.POS_ITEM_ID]
        return self.history_loss(HistoryBatch(items, targets, lengths))

    # ranking --------------------------------------------------------------------------------

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item as the next one, float32 [B, n_items]; [PAD] has -inf.

        Scores are float32 whatever the precision of the states: in bfloat16 many of the best items
        would tie.
        """
        last = self.last_states(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return F.pad(self.item_logits(last).float(), (1, 0), value=-torch.inf)

    def last_states(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Encode histories: items int64 [B, T], lengths int64 [B] -> last states float32 [B, H]."""
        groups, parts = [], []
        for rows, longest in length_groups(lengths, _USERS):
            with autocast(self.dtype, items.device):
                states = self.states(items[rows, :longest])  # [b, t, H]
            groups.append(rows)
            parts.append(self.gather_indexes(states, lengths[rows] - 1).float())
        last = torch.cat(parts)
        return torch.empty_like(last).index_copy_(0, torch.cat(groups), last)
