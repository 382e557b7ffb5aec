"""NOVA-BERT: masked training with non-invasive self-attention (a baseline of the paper, 5.1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.sequential_recommender.bert4rec import BERT4Rec
from torch import Tensor, nn

from recbole_bbqrec.model.base.checks import modalities_of, require_modalities
from recbole_bbqrec.model.base.history_model import PredictByRanking
from recbole_bbqrec.model.base.length_groups import length_groups
from recbole_bbqrec.model.baseline_settings import NOVABERTSettings
from recbole_bbqrec.model.parts.feature_fusion import ProjectedFeatures
from recbole_bbqrec.model.parts.non_invasive import NonInvasiveEncoder
from recbole_bbqrec.nn.dropout import replace_dropout
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read

_ROWS = 128  # histories per pass


class NOVABERT(PredictByRanking, BERT4Rec):
    """BERT4Rec whose attention takes queries and keys from item, features and position.

    Reference: Liu et al., "Non-invasive Self-attention for Side Information Fusion in Sequential
    Recommendation", AAAI 2021. The same: values and the residual path carry the item alone
    through all layers, side information is the same in all of them, fusion by ``add``,
    ``concat`` or ``gate``, masked training. A masked item's features are masked as well: they
    would reveal the item. Different: side information is pre-trained
    vectors instead of categories.

    Different from RecBole's BERT4Rec in training: the rows it masks include their target, as in
    the papers of both, so each user's last training item is learned from too; with
    ``train_target: False`` they do not, which is the training that RecBole's BERT4Rec gets and
    the one to compare with it. Masking is vectorised, and a history is shortened for the mask at
    its end only when it is full. The gate's weights are a soft-max over the sources, as in
    DIF-SR's NOVA for RecBole; the paper leaves its sigma open. There is no official code.
    """

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        settings = read(NOVABERTSettings, config)
        self.ft_ratio, self.train_target = settings.ft_ratio, settings.train_target
        self.features = ProjectedFeatures(
            dataset, modalities_of(dataset), self.hidden_size, settings.feature_scaling, std=1.0
        )
        # Give all sources of a query the item's scale; RecBole normalises item plus position.
        self.feature_norm = nn.LayerNorm(self.hidden_size, eps=self.layer_norm_eps)
        self.position_norm = nn.LayerNorm(self.hidden_size, eps=self.layer_norm_eps)
        self.trm_encoder = NonInvasiveEncoder(
            self.n_layers,
            len(modalities_of(dataset)) + 1,
            settings.nova_fusion,
            hidden=self.hidden_size,
            inner=self.inner_size,
            heads=self.n_heads,
            hidden_dropout=self.hidden_dropout_prob,
            attention_dropout=self.attn_dropout_prob,
            activation=self.hidden_act,
            eps=self.layer_norm_eps,
        )
        self.trm_encoder.apply(self._init_weights)
        replace_dropout(self)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        require_modalities(config, cls.__name__)
        read(NOVABERTSettings, config)

    # network --------------------------------------------------------------------------------

    def side_information(self, item_seq: Tensor) -> Tensor:
        """Return projected features and position of items int64 [B, T], [B, T, M + 1, H].

        Features are zero for [PAD], for missing modalities and for masked items.
        """
        known = item_seq.masked_fill(item_seq == self.mask_token, 0)
        present = self.features.present[known].unsqueeze(-1)  # [B, T, M, 1]
        features = self.feature_norm(self.features(known)) * present  # [B, T, M, H]
        position = self.position_norm(self.position_embedding.weight[: item_seq.shape[1]])
        position = position.view(1, -1, 1, self.hidden_size).expand(len(item_seq), -1, -1, -1)
        return torch.cat([features, position], dim=2)

    def forward(self, item_seq: Tensor) -> Tensor:
        """Encode items int64 [B, T], masked ones being ``n_items`` -> states [B, T, H]."""
        x = self.dropout(self.LayerNorm(self.item_embedding(item_seq)))  # [B, T, H]
        mask = self.get_attention_mask(item_seq, bidirectional=True)  # [B, 1, 1, T]
        x = self.trm_encoder(x, self.side_information(item_seq), mask)
        return self.output_ln(self.output_gelu(self.output_ffn(x)))

    def item_logits(self, states: Tensor) -> Tensor:
        """Score states [P, H] -> scores of all items [P, n_items]."""
        return states @ self.item_embedding.weight[: self.n_items].T + self.output_bias

    # training -------------------------------------------------------------------------------

    def append(self, items: Tensor, lengths: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Append an item to each history; a full history drops its oldest.

        Args:
            items: int64 [B, T], right padded; ``lengths`` int64 [B]; ``last`` int64 [B].

        Returns:
            Items int64 [B, T] and the position of ``last`` in them, int64 [B].
        """
        longer = F.pad(items, (0, 1)).scatter(1, lengths.unsqueeze(1), last.unsqueeze(1))
        full = lengths == items.shape[1]  # [B]
        place = lengths - full.long()
        return torch.where(full.unsqueeze(1), longer[:, 1:], longer[:, :-1]), place

    def choose_masked(self, items: Tensor, last: Tensor) -> Tensor:
        """Draw the positions to mask, bool [B, T].

        With probability ``ft_ratio``, or if no item is drawn, a row masks its last position alone,
        as at test time; otherwise each item with probability ``mask_ratio``.
        """
        drawn = (torch.rand(items.shape, device=items.device) < self.mask_ratio) & (items > 0)
        tuned = torch.rand(len(items), device=items.device) < self.ft_ratio  # [B]
        only_last = (tuned | ~drawn.any(1)).unsqueeze(1)  # [B, 1]
        at_last = torch.arange(items.shape[1], device=items.device) == last.unsqueeze(1)  # [B, T]
        return torch.where(only_last, at_last, drawn)

    def masked_loss(self, items: Tensor, masked: Tensor) -> Tensor:
        """Return the mean cross-entropy of masked items: items int64 [B, T], masked bool [B, T]."""
        states, targets = [], []
        for rows, longest in length_groups((items > 0).sum(1), _ROWS):
            part, mask = items[rows, :longest], masked[rows, :longest]  # [b, t]
            states.append(self.forward(part.masked_fill(mask, self.mask_token))[mask])
            targets.append(part[mask])
        return F.cross_entropy(self.item_logits(torch.cat(states)), torch.cat(targets))

    def calculate_loss(self, interaction: Any) -> Tensor:
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        last = lengths - 1
        if self.train_target:
            items, last = self.append(items, lengths, interaction[self.ITEM_ID])
        return self.masked_loss(items, self.choose_masked(items, last))

    # ranking --------------------------------------------------------------------------------

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item as the next one, float32 [B, n_items]."""
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        masked, place = self.append(items, lengths, torch.full_like(lengths, self.mask_token))
        last = self.item_embedding.weight.new_empty(len(items), self.hidden_size)
        for rows, longest in length_groups(place + 1, _ROWS):
            states = self.forward(masked[rows, :longest])  # [b, t, H]
            last[rows] = self.gather_indexes(states, place[rows]).to(last.dtype)
        return self.item_logits(last)
