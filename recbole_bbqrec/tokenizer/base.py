"""What a phase-one network offers to the trainer, and what it hands over when it is done."""

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
    float32 [S, L, N, D], S = 1 when shared; last_residuals float32 [n_items, M, D], what was left
    to quantize at the last level.
    """

    codes: Tensor
    vectors: Tensor
    codebooks: Tensor
    last_residuals: Tensor

    def last_level_distances(self, items: Tensor) -> Tensor:
        """Squared L2 of each item's last residual to each last-level code: [n, M, N]."""
        residual = self.last_residuals[items]  # [n, M, D]
        n_signals = residual.shape[1]
        last = self.codebooks[:, -1].expand(n_signals, -1, -1)  # [M, N, D]
        distances = torch.cdist(
            residual.transpose(0, 1), last, compute_mode="donot_use_mm_for_euclid_dist"
        )  # [M, n, N]
        return distances.pow(2).transpose(0, 1)


class PhaseOneNetwork(Protocol):
    """The methods the trainer calls; a network that implements them is an ``nn.Module``.

    :meth:`prepare` comes first. In an epoch: for each batch, fit the estimators on
    :meth:`mim_pairs` (skipped when :meth:`estimator_parameters` is empty), then one step on
    ``losses(...)["total"]`` over :meth:`main_parameters`; then :meth:`end_of_epoch`. Quantization
    starts when :meth:`initialise_codebooks` is called.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the M signals, "id" first if used."""

    @property
    def uses_sequences(self) -> bool:
        """Whether the losses need histories; if not, batches are slices of the catalogue."""

    @property
    def has_sequence_encoder(self) -> bool:
        """Whether :meth:`sequence_states` may be called."""

    def prepare(self, seed: int) -> None:
        """Called once, before the first epoch (not again when a run is resumed)."""

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """What the main optimizer trains."""

    def estimator_parameters(self) -> Iterator[nn.Parameter]:
        """What the estimators' own optimizer trains; may be empty."""

    def mim_pairs(self, items: Tensor) -> Pairs:
        """Detached inputs of the estimators for items int64 [U]; may be empty."""

    def estimator_loss(self, pairs: Pairs) -> Tensor:
        """Scalar the estimators minimise."""

    def losses(self, items: Tensor, sequences: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Scalars for items [U], sequences [B, T], targets [B, T]; "total" is to be minimised."""

    def initialise_codebooks(self, seed: int) -> None:
        """Fit the codebooks to all items and quantize from now on."""

    def end_of_epoch(self, generator: torch.Generator, last: bool) -> dict[str, float]:
        """Upkeep of the codebooks, less after the ``last`` epoch; returns statistics to log."""

    def sequence_states(self, sequences: Tensor, all_vectors: Tensor) -> Tensor:
        """Sequences [B, T] and item vectors [n_items, V] -> states h [B, T, V]."""

    def item_vectors(self) -> Tensor:
        """Item vectors v float32 [n_items, V], row 0 zero, no gradient."""

    def tokenize(self) -> Tokenization:
        """Semantic IDs of all items."""
