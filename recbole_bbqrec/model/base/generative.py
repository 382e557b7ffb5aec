"""RecBole adapter of the generator.

It turns RecBole's Interaction into plain tensors and ranked items into RecBole's scores. It holds
the semantic IDs, so that its checkpoint is complete; the phase-one network is built on request and
is not part of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType

from recbole_bbqrec.data.histories import HistoryBatch
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.batch.checks import check_histories, check_targets
from recbole_bbqrec.generator.batch.encoded_history import latest
from recbole_bbqrec.generator.inference.compiled_weights import forget
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.model.base.checks import require_feature_dataset
from recbole_bbqrec.model.settings import PhaseOneSettings, PhaseTwoSettings
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.runtime import autocast, resolve_precision
from recbole_bbqrec.settings import Settings, read
from recbole_bbqrec.tokenizer.base import PhaseOneNetwork, Tokenization
from recbole_bbqrec.tokenizer.collisions import resolve_collisions


class GenerativeRecommender(SequentialRecommender):
    """Base of every model that generates semantic IDs.

    A subclass says how items are tokenized (:meth:`signals_of`, :meth:`build_tokenizer`) and may
    change the settings of both networks (:meth:`tokenizer_settings`, :meth:`generator_settings`).
    """

    input_type = InputType.POINTWISE  # rows are (history, next item); no sampled negatives
    use_similarity = True  # whether self-attention carries the similarity module

    codes: torch.Tensor
    vectors: torch.Tensor
    features: torch.Tensor | None
    tokenized: torch.Tensor

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        require_feature_dataset(dataset, type(self).__name__)
        self.num_beams: int = config["num_beams"]
        self.top_k: int = max(config["topk"])
        self.mask_history: bool = config["mask_history"]
        self.learning_rate: float = config["learning_rate"]
        self.codebook_size: int = config["codebook_size"]
        self.dtype = resolve_precision(config["precision"], torch.device(config["device"]))
        signals = self.signals_of(config)
        levels, width = config["codebook_levels"], self.vector_width(config, len(signals))
        # The IDs travel in the checkpoint; row 0 is [PAD].
        self.register_buffer("codes", torch.zeros(self.n_items, levels, len(signals)).long())
        self.register_buffer("vectors", torch.zeros(self.n_items, width))
        self.register_buffer("tokenized", torch.tensor(False))
        # Store the features too: PCA may give other components on another machine.
        parts = self.build_features(config, dataset)
        self.register_buffer("features", torch.cat(parts, dim=1) if parts else None)
        width = sum(part.shape[1] for part in parts)
        settings = self.generator_settings(config, self.n_items, feature_dim=width)
        self.generator = self.build_generator(config, settings)
        self.neighbours = self.build_neighbours(config, dataset, parts)
        self._catalogue: Catalogue | None = None
        self.register_load_state_dict_post_hook(_forget_catalogue)

    def train(self, mode: bool = True) -> GenerativeRecommender:
        """Set training or evaluation mode; training frees the weights compiled for inference."""
        if mode:
            forget(self.generator)
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> GenerativeRecommender:
        """Drop the catalogue on every move to a device or dtype."""
        self._catalogue = None
        forget(self.generator)
        return super()._apply(*args, **kwargs)

    # hooks of a subclass --------------------------------------------------------------------

    @classmethod
    def tokenizer_name(cls) -> str:
        """Name the model whose phase one this is; models of one name may share semantic IDs."""
        return cls.__name__

    @classmethod
    def signals_of(cls, config: RunConfig) -> tuple[str, ...]:
        """Name the signals whose codes make up a token, in order."""
        raise NotImplementedError

    @classmethod
    def vector_width(cls, config: RunConfig, n_signals: int) -> int:
        """Return the width V of an item's quantized vector."""
        return n_signals * int(config["codebook_dim"])

    def build_tokenizer(
        self, config: RunConfig, dataset: ItemDataset, trained_items: torch.Tensor
    ) -> PhaseOneNetwork:
        """Make the phase-one network over the items of ``dataset``."""
        raise NotImplementedError

    def build_features(self, config: RunConfig, dataset: ItemDataset) -> list[torch.Tensor]:
        """Return the item features of phase two, each [n_items, F_m]; none by default."""
        return []

    def build_neighbours(
        self, config: RunConfig, dataset: ItemDataset, features: list[torch.Tensor]
    ) -> Neighbours | None:
        """Return the item neighbours that the item head adds when it ranks, or None."""
        return None

    @classmethod
    def make_unique(cls, config: RunConfig, result: Tokenization) -> Tokenization:
        """Separate items that share a semantic ID: give them another code at the last level."""
        codes = resolve_collisions(result.codes, result.last_level_distances)
        return replace(result, codes=codes)

    def build_generator(self, config: RunConfig, settings: GeneratorSettings) -> Generator:
        """Make the phase-two network."""
        return Generator(settings)

    @classmethod
    def tokenizer_settings(cls, config: RunConfig) -> Settings:
        """Read the settings of the phase-one network (paper, 4.1)."""
        raise NotImplementedError

    @classmethod
    def generator_settings(cls, config: RunConfig, n_items: int, **given: Any) -> GeneratorSettings:
        """Read the settings of the phase-two network (paper, 4.2); ``given`` fields win."""
        n_signals = len(cls.signals_of(config))
        fields = {
            "n_items": n_items,
            "n_signals": n_signals,
            "vector_dim": cls.vector_width(config, n_signals),
            "similarity": cls.use_similarity,
            "repeat_logit": config["item_head"] and config["repeat_logit"],
        }
        return read(GeneratorSettings, config, **{**fields, **given})

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        """Check options that depend on each other, before any file is read.

        Raises:
            UserError: the beam is too narrow for the metrics, training or evaluation is on sampled
                items, or widths, epochs or phases do not fit together.
        """
        need, why = max(config["topk"]), f"max(topk) = {max(config['topk'])}"
        if config["mask_history"]:
            need += config["MAX_ITEM_LIST_LENGTH"]
            why += f" plus the {config['MAX_ITEM_LIST_LENGTH']} history items that are masked"
        beams = read(PhaseTwoSettings, config).num_beams
        if beams < need:
            raise UserError(
                f"Option `num_beams` is {beams}; expected at least {need}: {why}. Widen the beam "
                "or lower `topk`."
            )
        cls.generator_settings(config, n_items=2)  # any number: the data are not read yet
        cls.tokenizer_settings(config)
        read(PhaseOneSettings, config)
        if config["train_neg_sample_args"]["distribution"] != "none":
            raise UserError(
                "Option `train_neg_sample_args` asks for sampled negatives; a generative model "
                "trains without. Remove it or leave it empty."
            )
        modes = config["eval_args"]["mode"]
        if set(modes.values()) != {"full"}:
            raise UserError(
                f"Option `eval_args` has mode {modes}; a generative model ranks the whole "
                "catalogue: use `mode: full`."
            )
        if config["benchmark_filename"]:
            raise UserError(
                "Option `benchmark_filename` is set; a generative model needs whole user "
                "sequences: give one .inter file and let RecBole split it."
            )

    # semantic IDs ---------------------------------------------------------------------------

    def set_semantic_ids(
        self, codes: torch.Tensor, vectors: torch.Tensor, codebooks: torch.Tensor | None = None
    ) -> None:
        """Store the result of phase one.

        Args:
            codes: int64 [n_items, L, M], row 0 unused.
            vectors: float32 [n_items, V], row 0 zero.
            codebooks: float32 [S, L, N, D] for models that start from them, or None.
        """
        self.codes.copy_(codes)
        self.vectors.copy_(vectors)
        self.tokenized.fill_(True)
        self._catalogue = None

    @property
    def catalogue(self) -> Catalogue:
        """Trie and similarity vectors, built at the first use after phase one."""
        if self._catalogue is None:
            if not bool(self.tokenized):
                raise RuntimeError("The items have no semantic IDs yet; run phase one first.")
            near, device = self.neighbours, self.codes.device
            self._catalogue = Catalogue.build(
                self.codes, self.vectors, self.codebook_size, features=self.features,
                neighbours=None if near is None else near.to(device),
            )  # fmt: skip
        return self._catalogue

    # training -------------------------------------------------------------------------------

    def history_loss(self, batch: HistoryBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the mean of -log P(next item) over a batch's targets (Eq. 1), and its parts.

        The batch is best on the CPU, see :meth:`Generator.loss`.
        """
        with autocast(self.dtype, self.codes.device):
            return self.generator.loss(self.catalogue, batch.items, batch.targets)

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        """Return the loss of RecBole's rows, each one (history, next item) pair."""
        items, lengths = self._history(interaction)
        targets = torch.zeros_like(items)
        rows = torch.arange(len(items), device=items.device)
        targets[rows, lengths - 1] = interaction[self.POS_ITEM_ID]
        check_histories(items, self.max_seq_length)
        check_targets(items, targets, self.generator.config.history_encoding)
        return self.history_loss(HistoryBatch(items, targets, lengths))[0]

    # ranking --------------------------------------------------------------------------------

    @torch.no_grad()
    def recommend(
        self, items: torch.Tensor, lengths: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k best next items of each history by constrained beam search.

        Args:
            items: int64 [B, T], right padded with 0; only the last ``MAX_ITEM_LIST_LENGTH`` items
                are read.
            lengths: int64 [B], all of one or more.
            k: items per history; at most ``num_beams``.

        Returns:
            Item ids int64 [B, k], best first, and their log-probabilities float32 [B, k].

        Raises:
            UserError: a history is empty or has [PAD] inside, the beam returns fewer than k items,
                or fewer than k scores of a history are finite.
        """
        if int(lengths.min()) < 1:
            raise UserError(
                f"A history of length {int(lengths.min())}; expected at least one item. Leave out "
                "users without a history."
            )
        history = latest(items, lengths, self.max_seq_length)
        expected = lengths.to(history.device).clamp(max=history.shape[1])
        if not torch.equal((history != 0).sum(1), expected):
            raise UserError(
                "A history has item 0, which is [PAD], within its length; expected items of the "
                "catalogue, from 1, and padding after them. Leave unknown items out."
            )
        ids, scores = rank(self.generator, self.catalogue, history, self.num_beams, self.dtype)
        if self.mask_history:
            seen = (ids.unsqueeze(2) == history.unsqueeze(1)).any(2)  # [b, K]
            scores = scores.masked_fill(seen, -torch.inf)
            scores, place = torch.sort(scores, dim=1, descending=True, stable=True)
            ids = ids.gather(1, place)
        finite = torch.isfinite(scores).sum(1)
        needed = min(k, self.n_items - 1)
        if ids.shape[1] < k:
            raise UserError(
                f"k is {k}; expected at most {ids.shape[1]}, of {self.n_items - 1} items and "
                f"`num_beams` {self.num_beams}. Ask for fewer, or raise `num_beams`."
            )
        if int(finite.min()) < needed:
            raise self._too_few(int(finite.min()), k, history.shape[1])
        return ids[:, :k], scores[:, :k].float()

    def _too_few(self, found: int, k: int, masked: int) -> UserError:
        left = self.n_items - 1 - masked
        if self.mask_history and left < k:
            why = (
                f"`mask_history` leaves {left} of {self.n_items - 1} items to a user with a "
                f"history of {masked}. Lower `topk`, or leave `mask_history` out."
            )
        else:
            why = (
                f"Training has diverged: `learning_rate` was {self.learning_rate:g}. Start a new "
                "run with a lower --learning_rate."
            )
        return UserError(f"{found} items have a finite score for some user; {k} are needed. {why}")

    def rank_interaction(self, interaction: Any) -> torch.Tensor:
        """Return ranked ids int64 [B, max(topk)] for an evaluation batch."""
        items, lengths = self._history(interaction)
        return self.recommend(items, lengths, self.top_k)[0]

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Return scores in RecBole's form [B, n_items], -inf for [PAD] and masked items.

        RecBole's case-study tools read it; evaluation reads ranked ids. The items of the beam are
        ranked as in evaluation; all others come after them, by their exact scores.
        """
        items, lengths = self._history(interaction)
        width = min(self.num_beams, self.n_items - 1)
        if self.mask_history:
            width -= items.shape[1]
        ids, scores = self.recommend(items, lengths, width)
        history = latest(items, lengths, self.max_seq_length)
        memory = self.generator.encode(self.catalogue, history)
        full = exact_scores(self.generator, self.catalogue, memory).float()  # [B, n_items]
        if self.mask_history:
            full.scatter_(1, history, -torch.inf)
        lowest = scores.masked_fill(scores.isneginf(), torch.inf).amin(1, keepdim=True)
        below = torch.nextafter(lowest, torch.full_like(lowest, -torch.inf))
        return torch.minimum(full, below).scatter_(1, ids, scores)

    @torch.no_grad()
    def predict(self, interaction: Any) -> torch.Tensor:
        """Return the exact log-probability [B] of ``interaction[item_id]`` as the next item."""
        items, lengths = self._history(interaction)
        items = items[:, : int(lengths.max())]
        check_histories(items, self.max_seq_length)
        memory = self.generator.encode(self.catalogue, items)
        scores = exact_scores(self.generator, self.catalogue, memory)
        return scores.gather(1, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def _history(self, interaction: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]


def _forget_catalogue(model: Any, _: Any) -> None:
    """Drop the trie of the codes that a loaded state has replaced."""
    model._catalogue = None
