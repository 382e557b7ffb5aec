"""Models that learn nothing: neighbours of the history, also in the scores of ESASRec and VQRec.

BBQRec adds the values of :class:`ItemNeighbours` to its item head at decoding. A comparison with
these models shows what the rest of BBQRec is worth. STAR and TGH are others' models of this kind.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.model.base.history_model import PredictByRanking
from recbole_bbqrec.model.parts.neighbour_model import NeighbourScores, WithNeighbours
from recbole_bbqrec.model.parts.shared_users import last_items, shared_users, unit_features
from recbole_bbqrec.model.parts.transition_rings import TransitionGraph
from recbole_bbqrec.model.sequential_recommender.esasrec import ESASRec
from recbole_bbqrec.model.sequential_recommender.vqrec import VQRec
from recbole_bbqrec.model.settings import NeighbourSettings, STARSettings, TGHSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.settings import read

_SEEN = 1000.0  # taken from the scores of a history's items: they come last


class _LearnsNothing(PredictByRanking, SequentialRecommender):
    """Base of models that are known once the training data is; :meth:`scores` is their all."""

    input_type = InputType.POINTWISE

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        self.unused = nn.Parameter(torch.zeros(1))  # RecBole's trainer needs a parameter

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
        if config["benchmark_filename"]:
            raise UserError(
                f"Option `benchmark_filename` is {config['benchmark_filename']!r}; {cls.__name__} "
                "needs whole user sequences: give one .inter file and let RecBole split it."
            )

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return zero: nothing is learned."""
        return self.unused.sum() * 0.0

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score every item as the next one, float32 [B, n_items]; [PAD] has -inf."""
        scores = self.scores(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return F.pad(scores[:, 1:], (1, 0), value=-torch.inf)

    def scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Score all items after histories: items int64 [B, T], lengths int64 [B] -> [B, n_items].

        Histories are right padded with 0.
        """
        raise NotImplementedError


class ItemNeighbours(_LearnsNothing):
    """Ranks items by how near they are to those of the history; nothing is learned.

    Reference: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW
    2001. Here an item j of the history adds to the score of i by co-occurrence and by similarity of
    features (:mod:`recbole_bbqrec.model.parts.neighbour_graph`), the less the older j is. A
    baseline for any comparison of sequential models.
    """

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        # Not in the checkpoint: made anew from the same data.
        self.neighbour_scores = NeighbourScores.of(config, dataset)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
        super().check_options(config)
        settings = read(NeighbourSettings, config)
        if settings.cooccurrence_weight:
            return
        if not (settings.feature_similarity_weight and config["modalities"]):
            raise UserError(
                f"Options `cooccurrence_weight` is {settings.cooccurrence_weight}, "
                f"`feature_similarity_weight` {settings.feature_similarity_weight} and "
                f"`modalities` {config['modalities']!r}: nothing is left to rank by. Give a weight."
            )

    def scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Sum the values of the neighbours; items without any have 0."""
        scores = torch.zeros(len(items), self.n_items, device=items.device)
        return self.neighbour_scores.add_to(scores, items, lengths)


class STAR(_LearnsNothing):
    """Ranks by text and by shared users of the last few items; the retrieval stage of STAR.

    Reference: Lee et al., "STAR: A Simple Training-free Approach for Recommendations using Large
    Language Models", 2024, arXiv:2410.16458. No code of its authors was found. The score of item i
    is the sum over the last l items j of the history of

        r_j lambda ** t_j (a cos(i, j) + (1 - a) C(i, j))

    where t_j counts from the most recent item and C is the number of users who chose both items,
    over the geometric mean of the numbers of those who chose one of them.

    The same: the score; items of the history are no candidates (here they come last); a, lambda and
    l start at the paper's .5, .7 and 3 in STAR.yaml.

    Different on purpose: the text is what the data set has, not the paper's prompt encoded by a
    large language model; the features of several modalities are joined; all ratings r_j are 1, as
    events have none here; users are counted in training alone; and the second stage, a large
    language model that ranks the candidates anew, is left out.
    """

    unit_features: Tensor

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        self.settings = settings = read(STARSettings, config)
        features = torch.zeros(self.n_items, 1)
        if settings.text_weight and dataset.modalities:
            features = unit_features(dataset, dataset.modalities)
        # Not in the checkpoint: made anew from the same data.
        self.register_buffer("unit_features", features, persistent=False)  # [n_items, F]
        users = shared_users(Histories.from_training_data(dataset), self.n_items)
        self.shared = Neighbours.of_matrix(users, settings.neighbour_decay)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
        super().check_options(config)
        share = read(STARSettings, config).text_weight
        if share and not config["modalities"]:
            raise UserError(
                f"Option `modalities` is {config['modalities']!r} with `text_weight` {share}; STAR "
                "compares texts. Use --modalities=[text], or --text_weight=0 to rank by shared "
                "users alone."
            )

    def scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Score all items; those of the history come last."""
        share, decay = self.settings.text_weight, self.settings.neighbour_decay
        recent, kept = last_items(items, lengths, self.settings.recent_items)
        self.shared = self.shared.to(items.device)
        scores = torch.zeros(len(items), self.n_items, device=items.device)
        self.shared.bonus(self.n_items, recent, kept, torch.float64).add_to(scores.t())
        ago = kept.unsqueeze(1) - 1 - torch.arange(recent.shape[1], device=items.device)
        weights = torch.where(ago >= 0, decay ** ago.clamp(min=0).float(), 0)  # [B, l]
        profile = (self.unit_features[recent] * weights.unsqueeze(2)).sum(1)  # [B, F]
        scores = (1 - share) * scores + share * (profile @ self.unit_features.t())
        seen = torch.zeros_like(scores).scatter_(1, items, _SEEN)
        return scores - seen


class TGH(_LearnsNothing):
    """Ranks the items that follow the last one in training, in one to three steps, by their text.

    Reference: Han et al., "An Embarrassingly Simple Graph Heuristic Reveals Shortcut-Solvable
    Benchmarks for Sequential Recommendation", 2026, arXiv:2605.07125 (TGH-1). Ring h has the items
    that are h transitions away from the last item of the history
    (:mod:`recbole_bbqrec.model.parts.transition_rings`). Within a ring items are ordered by the
    cosine of their text and the last item's; those of ring 1 gain, by how often they follow it.
    The ranking takes the first 7 of ring 1, 2 of ring 2 and 1 of ring 3, then what is left of the
    rings.

    The same: the graph of training transitions, the rings, the order within them, their numbers and
    the weight.

    Different on purpose: the text is what the data set has, not flan-t5-xl's; a ring with fewer
    items than places leaves these to what is left of all rings, after the last ring (the released
    code fills them at once from the rings before); all other items follow by their text, so that
    every item has a place (the code draws them by chance); repetitions of an item are no
    transitions. TGH-2, with the rings of the last two items, is left out.
    """

    unit_features: Tensor

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        self.settings = read(TGHSettings, config)
        # Not in the checkpoint: made anew from the same data.
        features = unit_features(dataset, dataset.modalities)
        self.register_buffer("unit_features", features, persistent=False)  # [n_items, F]
        self.graph = TransitionGraph.of(Histories.from_training_data(dataset), self.n_items)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options before any file is read; raises UserError."""
        super().check_options(config)
        read(TGHSettings, config)
        if not config["modalities"]:
            raise UserError(
                f"Option `modalities` is {config['modalities']!r}; TGH orders items by their text. "
                "Use --modalities=[text]."
            )

    def scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Score all items: the whole number is the part of the ranking, the rest the order in it.

        The last item itself comes last.
        """
        places = self.settings.ring_places
        last = items.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)  # [B]
        sources, depth = last.cpu().numpy(), len(places)
        distance = torch.from_numpy(self.graph.rings(sources, depth)).to(items.device)
        weights = torch.from_numpy(self.graph.weights_from(sources)).to(items.device)
        weight = self.settings.transition_weight
        alike = self.unit_features[last] @ self.unit_features.t() + weight * weights
        order = (alike + 1.1) / (2.2 + weight)  # within (0, 1), also with rounding
        scores = (depth + 1 - distance).float() + order
        for ring, count in enumerate(places, start=1):
            inside = torch.where(distance == ring, order, -1)
            best, index = inside.topk(min(count, self.n_items), 1)
            scores.scatter_add_(1, index, torch.where(best >= 0, float(depth), 0.0))
        return scores.scatter(1, last.unsqueeze(1), -1.0)


class ESASRecNeighbours(WithNeighbours, ESASRec):
    """Ranks by ESASRec's logits plus the scores of :class:`ItemNeighbours`.

    Trained exactly as ESASRec; the epoch is chosen with neighbours.
    """

    properties_base = "ESASRec"


class VQRecNeighbours(WithNeighbours, VQRec):
    """Ranks by VQRec's logits plus the scores of :class:`ItemNeighbours`.

    VQRec's network did best on Beauty with the history masked (docs/results.md). Trained exactly as
    VQRec; the epoch is chosen with neighbours.
    """

    properties_base = "VQRec"
