"""MISSRec: multi-modal interests guide the decoding of the item sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.distributed.sums import total
from recbole_bbqrec.model.base.checks import modalities_of, require_modalities
from recbole_bbqrec.model.base.history_model import HistoryRecommender
from recbole_bbqrec.model.baseline_settings import MISSRecSettings
from recbole_bbqrec.model.parts.feature_fusion import ProjectedFeatures
from recbole_bbqrec.model.parts.interests import dpc_knn, first_occurrences
from recbole_bbqrec.nn.dropout import Dropout
from recbole_bbqrec.nn.transformer import (
    INIT_STD,
    Attention,
    FeedForward,
    init_weights,
)
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.runtime import autocast

_NO_WEIGHT = -1e4  # logit of a missing modality; finite, see fused_logits()


class MISSRec(HistoryRecommender):
    """Encoder over a user's interests, decoder over the items, fused multi-modal candidates.

    Reference: Wang et al., "MISSRec: Pre-training and Transferring Multi-modal Interest-aware
    Sequence Representation for Recommendation", MM 2023. The same: items are clustered by DPC-kNN
    on their multi-modal embeddings, again every ``interest_update_epochs``; the encoder sees each
    interest of the history once, the decoder attends to its output and, without a causal mask, to
    the whole history; with several modalities a candidate's score is the mean of its ID's cosine
    and its modalities', the latter weighted by a soft-max with one learned factor; softmax of
    score / temperature over all items. Every prefix is a row of its own, since its interests are
    those of the whole prefix.

    Different by default, as in all measured rows: with one modality the mean of two cosines (there
    the cosine with the sum of ID and projected features: ``one_modality_score``); clusters of
    normalised vectors with five neighbours other than the point itself (there of the vectors as
    they are, a tenth of the points, the point itself among them: ``interest_clustering``,
    ``interest_neighbours``); no dropout on attention weights and inside the feed-forward networks
    (there .5: ``attention_dropout``, ``inner_dropout``); the width. ``MISSRec.paper.yaml`` has the
    released values.

    Different on purpose: a constant token precedes the interests, so that the encoder's input is
    never empty; trained from scratch (as in BBQRec's table); one cluster for the mean of
    an item's modalities (released code: each modality of an item is clustered, which doubles the
    points and the interests, by mini-batch k-means in place of the paper's DPC-kNN); an interest
    is the present mean of its items, gradient included (there: the centre found before the
    epoch); an item's input is the mean of what it has (there: the sum); the regulariser is the
    mean squared cosine between a user's interests (there: the squared length of their sum over
    the batch); a missing modality has no weight in a score; pre-norm layers; no loop over users.
    """

    encoding = "bidirectional"
    settings_class = MISSRecSettings
    settings: MISSRecSettings

    interest_of: Tensor
    known: Tensor

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        settings = self.settings
        self.temperature = settings.temperature
        self.orthogonality_weight = settings.orthogonality_weight
        self.update_epochs = settings.interest_update_epochs
        hidden, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout

        self.item_embedding = nn.Embedding(self.n_items, hidden, padding_idx=0)
        self.position_embedding = nn.Embedding(self.max_seq_length, hidden)
        # First token of the encoder: it is never empty, even without a known interest.
        self.no_interest_embedding = nn.Parameter(torch.randn(hidden) * INIT_STD)
        shape = (hidden, heads, dropout, settings.attention_dropout)
        feed = (hidden, settings.inner_size, dropout, settings.inner_dropout)
        encoder_layers, decoder_layers = settings.encoder_layers, settings.decoder_layers
        self.encoder_attention = nn.ModuleList(Attention(*shape) for _ in range(encoder_layers))
        self.encoder_feed = nn.ModuleList(FeedForward(*feed) for _ in range(encoder_layers))
        self.self_attention = nn.ModuleList(Attention(*shape) for _ in range(decoder_layers))
        self.cross_attention = nn.ModuleList(Attention(*shape) for _ in range(decoder_layers))
        self.decoder_feed = nn.ModuleList(FeedForward(*feed) for _ in range(decoder_layers))
        self.input_norm = nn.LayerNorm(hidden)
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.apply(init_weights)

        self.features = ProjectedFeatures(
            dataset, modalities_of(dataset), hidden, settings.feature_scaling, std=INIT_STD
        )
        # Candidate fusion: the weight of modality m is softmax(factor * cosine_m), equal at first.
        self.fusion_factor = nn.Parameter(torch.zeros(()))
        self.dropout = Dropout(dropout)

        present = self.features.present
        known = torch.cat([torch.ones(self.n_items, 1, dtype=torch.bool), present], dim=1)
        self.register_buffer("known", known, persistent=False)  # [n_items, 1 + M]
        clustered = int(present.any(1).sum())
        self.n_interests = max(1, round(settings.interest_ratio * clustered))
        # 0: an item without modality and interest. Stored in the checkpoint.
        self.register_buffer("interest_of", torch.zeros(self.n_items, dtype=torch.int64))

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        require_modalities(config, cls.__name__)

    # items and interests --------------------------------------------------------------------

    def representations(self) -> Tensor:
        """Return ID and modality representations of all items, [n_items, 1 + M, H]; missing: 0."""
        table = self.item_embedding.weight.unsqueeze(1)  # [n_items, 1, H]
        return torch.cat([table, self.features.catalogue().to(table.dtype)], dim=1)

    def _mean_known(self, representations: Tensor, known: Tensor) -> Tensor:
        """Average the representations that exist: [n, R, H], bool [n, R] -> [n, H]."""
        return representations.sum(1) / known.sum(1, keepdim=True).clamp(min=1)

    def start_epoch(self, epoch: int) -> None:
        if epoch % self.update_epochs == 0:
            self.update_interests()

    @torch.no_grad()
    def update_interests(self) -> None:
        """Cluster the items by their present multi-modal embeddings."""
        modal = self._mean_known(self.representations()[:, 1:], self.known[:, 1:])  # [n_items, H]
        items = self.known[:, 1:].any(1).nonzero().squeeze(1)  # items with some modality
        released = self.settings.interest_clustering == "released"
        points = modal[items]
        points = points * points.shape[1] ** -0.5 if released else F.normalize(points, dim=-1)
        k = self.settings.interest_neighbours
        k = max(1, round(k * len(points))) if k < 1 else round(k)
        self.interest_of[items] = 1 + dpc_knn(points, self.n_interests, k, count_itself=released)

    def interest_embeddings(self, representations: Tensor) -> Tensor:
        """Average the multi-modal embeddings of each interest, [1 + K, H]; row 0 is unused."""
        modal = self._mean_known(representations[:, 1:], self.known[:, 1:])  # [n_items, H]
        sums = modal.new_zeros(1 + self.n_interests, modal.shape[1])
        sums = sums.index_add(0, self.interest_of, modal)
        counts = torch.bincount(self.interest_of, minlength=1 + self.n_interests)
        return sums / counts.clamp(min=1).unsqueeze(1)

    # network --------------------------------------------------------------------------------

    def encode_interests(self, items: Tensor, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the users' interests, [B, T + 1, H], and return which exist, bool [B, T + 1]."""
        labels = self.interest_of[items]  # [B, T]
        tokens = self.interest_embeddings(representations)[labels]  # [B, T, H]
        x = torch.cat([self.no_interest_embedding.expand(len(items), 1, -1), tokens], dim=1)
        exists = F.pad(first_occurrences(labels) & (labels > 0), (1, 0), value=True)  # [B, T + 1]
        x = self.dropout(x)
        for attention, feed in zip(self.encoder_attention, self.encoder_feed):
            x = feed(attention(x, exists.unsqueeze(1)))
        return self.encoder_norm(x), exists

    def decode(
        self, items: Tensor, representations: Tensor, memory: Tensor, exists: Tensor
    ) -> Tensor:
        """Decode the item sequence, attending to all of it and to the interests: [B, T, H]."""
        vectors = self._mean_known(representations, self.known)[items]  # [B, T, H]
        x = vectors + self.position_embedding.weight[: items.shape[1]]
        x = self.dropout(self.input_norm(x))
        mask = (items > 0).unsqueeze(1)  # [B, 1, T]
        parts = zip(self.self_attention, self.cross_attention, self.decoder_feed)
        for attention, cross, feed in parts:
            x = feed(cross(attention(x, mask), exists.unsqueeze(1), memory))
        return self.decoder_norm(x)

    def states(self, items: Tensor) -> Tensor:
        representations = self.representations()
        memory, exists = self.encode_interests(items, representations)
        return self.decode(items, representations, memory, exists)

    def item_logits(self, states: Tensor) -> Tensor:
        return self.fused_logits(states, self.representations())

    def fused_logits(self, states: Tensor, representations: Tensor) -> Tensor:
        """Return (id + M * fused) / (1 + M) / temperature, [P, n_items - 1].

        ``id`` is the cosine with the ID embedding, ``fused`` the weighted mean of the cosines with
        the M modalities that the item has. With one modality ``one_modality_score`` may ask for
        the cosine with the sum of both.
        """
        if representations.shape[1] == 2 and self.settings.one_modality_score == "sum":
            summed = F.normalize(representations[1:].sum(1), dim=-1).to(states.dtype)  # [N, H]
            return F.normalize(states, dim=-1) @ summed.T / self.temperature
        candidates = F.normalize(representations[1:], dim=-1)  # [N, R, H]
        known = self.known[1:, 1:]  # [N, M]
        share = 1 / (1 + known.sum(1, keepdim=True)) / self.temperature  # [N, 1]
        query = F.normalize(states, dim=-1)

        def cosines(rows: Tensor) -> Tensor:
            return query @ rows.to(states.dtype).T  # [P, N]

        if known.shape[1] == 1:  # its weight is one: means of cosines are cosines of means
            return cosines(candidates.sum(1) * share)
        if known.shape[1] == 2:
            # a + w (b - a) for the cosines a, b, where the item has both: of two products alone.
            both = known.all(1, keepdim=True)  # [N, 1]
            by_id, first, second = candidates.unbind(1)
            base = by_id + torch.where(both, 2 * first, first + second)
            gap = cosines(torch.where(both, second - first, 0))  # [P, N]
            weighed = (self.fusion_factor * gap).sigmoid() * gap * (2 * share).T
            return cosines(base * share) + weighed
        by_id, *by_modality = [cosines(candidates[:, r]) for r in range(candidates.shape[1])]
        weights = torch.stack(
            [
                # Finite: if all are missing, the mean of their zero cosines must be zero.
                (self.fusion_factor * cosine).masked_fill(~known[:, m], _NO_WEIGHT)
                for m, cosine in enumerate(by_modality)
            ]
        ).softmax(0)  # [M, P, N]
        fused = sum(weight * cosine for weight, cosine in zip(weights, by_modality))
        return (by_id + known.sum(1) * fused) * share.T

    # training -------------------------------------------------------------------------------

    def orthogonality(self, memory: Tensor, exists: Tensor, share: float = 1.0) -> Tensor:
        """Return the mean squared cosine between two interests of a user, a scalar.

        memory [B, S, H], exists bool [B, S]; the constant first token is not an interest. Of
        several processes, this one's part of the mean, divided by its ``share`` of the batch,
        which the trainer multiplies by.
        """
        interests, real = F.normalize(memory[:, 1:].float(), dim=-1), exists[:, 1:]
        cosines = interests @ interests.transpose(1, 2)  # [B, S - 1, S - 1]
        pairs = (real.unsqueeze(1) & real.unsqueeze(2)).triu(1)
        pairs = pairs & (share > 0)
        return (cosines.pow(2) * pairs).sum() / total(pairs.sum()).clamp(min=1) / (share or 1.0)

    def history_loss(self, batch: HistoryBatch) -> Tensor:
        """Return cross-entropy over all items plus the weighted orthogonality, a scalar."""
        with autocast(self.dtype, batch.items.device):
            representations = self.representations()
            memory, exists = self.encode_interests(batch.items, representations)
            mask = batch.targets > 0  # [B, T]
            states = self.decode(batch.items, representations, memory, exists)[mask]  # [P, H]
            logits = self.fused_logits(states, representations).float()
            loss = F.cross_entropy(logits, batch.targets[mask] - 1)
            return loss + self.orthogonality_weight * self.orthogonality(
                memory, exists, batch.share
            )
