"""Interface of a phase-one network to the trainer, and the tokenization that it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor, Tensor]  # z [U, D], zbar [U, D], mask bool [U]
Pairs = Mapping[str, Pair]  # by modality


@dataclass(frozen=True)
class Tokenization:
    """Semantic IDs of the whole vocabulary, before collisions are resolved.

    codes int64 [n_items, L, M] and vectors float32 [n_items, V], row 0 ([PAD]) zero; codebooks
    float32 [S, L, N, D], S = 1 when shared; last_residuals float32 [n_items, M, D], the input of
    the last level.
    """

    codes: Tensor
    vectors: Tensor
    codebooks: Tensor
    last_residuals: Tensor

    def last_level_distances(self, items: Tensor) -> Tensor:
        """Squared L2 from items' last residuals to the last level's codes: [n] -> [n, M, N]."""
        residual = self.last_residuals[items]  # [n, M, D]
        n_signals = residual.shape[1]
        last = self.codebooks[:, -1].expand(n_signals, -1, -1)  # [M, N, D]
        distances = torch.cdist(
            residual.transpose(0, 1), last, compute_mode="donot_use_mm_for_euclid_dist"
        )  # [M, n, N]
        return distances.pow(2).transpose(0, 1)


class PhaseOneNetwork(Protocol):
    """Methods that the trainer calls; a network that has them is an ``nn.Module``.

    :meth:`prepare` is called first. Each batch of an epoch fits the estimators on
    :meth:`mim_pairs` (unless :meth:`estimator_parameters` is empty), then takes one step on
    ``losses(...)["total"]`` over :meth:`main_parameters`. :meth:`start_of_epoch` precedes the
    batches of every epoch but the first, :meth:`end_of_epoch` follows them. Quantization starts
    with :meth:`initialise_codebooks`.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the M signals, "id" first if used."""

    @property
    def uses_sequences(self) -> bool:
        """True if the losses need histories; otherwise batches are slices of the catalogue."""

    @property
    def has_sequence_encoder(self) -> bool:
        """True if :meth:`sequence_states` may be called."""

    def prepare(self, seed: int) -> None:
        """Prepare once, before the first epoch; not again when a run is resumed."""

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the main optimizer."""

    def estimator_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the estimators' own optimizer; may be empty."""

    def mim_pairs(self, items: Tensor) -> Pairs:
        """Return detached inputs of the estimators for items int64 [U]; may be empty."""

    def estimator_loss(self, pairs: Pairs) -> Tensor:
        """Return the scalar that the estimators minimise."""

    def losses(self, items: Tensor, sequences: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return scalars for items [U], sequences [B, T], targets [B, T]; minimise "total"."""

    def initialise_codebooks(self, seed: int) -> None:
        """Fit the codebooks to all items, and quantize from now on."""

    def start_of_epoch(self, generator: torch.Generator) -> None:
        """Maintain the codebooks, by the codes' usage in the epoch before."""

    def end_of_epoch(self) -> dict[str, float]:
        """Return statistics of the epoch to log; changes nothing."""

    def sequence_states(self, sequences: Tensor, all_vectors: Tensor) -> Tensor:
        """Encode sequences [B, T] over item vectors [n_items, V] into states h [B, T, V]."""

    def item_vectors(self) -> Tensor:
        """Return item vectors v float32 [n_items, V], row 0 zero, without gradient."""

    def tokenize(self) -> Tokenization:
        """Return the semantic IDs of all items."""
