"""Base of phase-one networks: the quantizer, its upkeep, and the tokenization of all items.

A subclass of :class:`QuantizingNetwork` needs ``signals``, ``represent``, ``signals_present`` and
``losses`` to be a :class:`~recbole_bbqrec.tokenizer.base.PhaseOneNetwork`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recbole_bbqrec.distributed.sums import part, rows_of_all, synchronise, total
from recbole_bbqrec.tokenizer.base import Pairs, Tokenization
from recbole_bbqrec.tokenizer.quantizer import Quantization, ResidualQuantizer

ENCODE_ITEMS = 2048  # items per block when all items are encoded
QUANTIZE_ITEMS = 8192  # items per block when all items are quantized


class QuantizingNetwork(nn.Module):
    """Encoders into z [U, M, D] followed by a residual quantizer.

    z passes through unquantized until :meth:`initialise_codebooks` sets ``quantizing``, a buffer,
    so that a reloaded network goes on quantizing. A subclass calls :meth:`set_quantizer` when it
    is built.
    """

    quantizing: Tensor
    uses_sequences = True

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self._quantizes = False, torch.zeros(0), -1  # see is_quantizing()

    def set_quantizer(self, quantizer: ResidualQuantizer) -> None:
        """Add the quantizer, not yet in use."""
        self.quantizer = quantizer
        self.register_buffer("quantizing", torch.tensor(False))

    def is_quantizing(self) -> bool:
        """Return ``quantizing``; a device is asked for it only after it was written."""
        _, read, version = self._quantizes
        if read is not self.quantizing or version != read._version:
            self._quantizes = bool(self.quantizing), self.quantizing, self.quantizing._version
        return self._quantizes[0]

    # ---- for subclasses ----------------------------------------------------------------

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the M signals."""
        raise NotImplementedError

    def represent(self, items: Tensor) -> Tensor:
        """Encode items int64 [U] as z [U, M, D], the input of the quantizer."""
        raise NotImplementedError

    def signals_present(self) -> Tensor:
        """Mask bool [n_items, M] of the signals that items have."""
        raise NotImplementedError

    @property
    def has_sequence_encoder(self) -> bool:
        """True if :meth:`sequence_states` may be called."""
        return False

    def prepare(self, seed: int) -> None:
        """Prepare once, before the first epoch; nothing to do here."""

    def estimator_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters with an optimizer of their own; none here."""
        return iter(())

    def mim_pairs(self, items: Tensor) -> Pairs:
        """Inputs of the estimators; none here."""
        return {}

    def estimator_loss(self, pairs: Pairs) -> Tensor:
        """Raise ValueError: there are no estimators."""
        raise ValueError("this network has no estimators")

    def sequence_states(self, sequences: Tensor, all_vectors: Tensor) -> Tensor:
        """Raise ValueError: there is no sequence encoder."""
        raise ValueError("this network has no sequence encoder")

    # ---- shared ------------------------------------------------------------------------

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters other than the estimators'."""
        estimators = {id(parameter) for parameter in self.estimator_parameters()}
        return (p for p in self.parameters() if id(p) not in estimators)

    def _quantized(self, z: Tensor, weights: Tensor | None = None) -> Quantization:
        """Quantize z [U, M, D], or pass it through with zero losses during warm-up."""
        if self.is_quantizing():
            return self.quantizer(z, weights)
        zero = z.new_zeros(z.shape[1])
        codes = zero.new_zeros((len(z), self.quantizer.levels, z.shape[1]), dtype=torch.int64)
        return Quantization(z, z.detach(), codes, zero, zero, z.detach())

    @torch.no_grad()
    def initialise_codebooks(self, seed: int) -> None:
        """Fit the codebooks by k-means to all items, level by level, and quantize from now on."""
        self.quantizer.initialise(self._all_z(), seed)
        self.quantizing.fill_(True)
        synchronise(self)

    @torch.no_grad()
    def start_of_epoch(self, generator: torch.Generator) -> None:
        """Restart the codes that were dead in the epoch before, and count anew.

        Not at the end of that epoch: its state may be the one that is kept, and no step would have
        trained the new codes.
        """
        quantizer = self.quantizer
        if self.quantizing and quantizer.usage.any():
            if quantizer.dead_codes().any():
                present = self.signals_present()[1:]  # [n_items - 1, M]
                quantizer.restart_dead_codes(self._all_z(), present, generator)
            quantizer.reset_usage()
            synchronise(self)

    @torch.no_grad()
    def end_of_epoch(self) -> dict[str, float]:
        """Return statistics of the codes' usage in the epoch; empty during warm-up.

        Keys: utilisation/level<l>/<signal>, perplexity/level<l>/<signal>, dead/level<l>.
        """
        quantizer = self.quantizer
        quantizer.usage.copy_(total(quantizer.usage))  # of all processes
        if not self.quantizing or not quantizer.usage.any():
            return {}
        stats = {}
        utilisation, perplexity = quantizer.utilisation().tolist(), quantizer.perplexity().tolist()
        for level in range(quantizer.levels):
            for index, signal in enumerate(self.signals):
                stats[f"utilisation/level{level + 1}/{signal}"] = utilisation[level][index]
                stats[f"perplexity/level{level + 1}/{signal}"] = perplexity[level][index]
        dead = quantizer.dead_codes().sum(dim=(0, 2)).tolist()
        stats.update({f"dead/level{i + 1}": float(n) for i, n in enumerate(dead)})
        return stats

    def item_vectors(self) -> Tensor:
        """Return v of all items, float32 [n_items, V], row 0 zero, without gradient or dropout."""
        with self._evaluating():
            parts = [
                self._quantized(z).quantized for z in torch.split(self._all_z(), QUANTIZE_ITEMS)
            ]
        return with_pad_row(torch.cat(parts).flatten(1).float())

    def tokenize(self) -> Tokenization:
        """Return the semantic IDs of all items; ValueError before the codebooks are initialised."""
        if not self.quantizing:
            raise ValueError("tokenize() needs codebooks: call initialise_codebooks() first")
        with self._evaluating():
            result = self.quantizer(self._all_z())
        return Tokenization(
            codes=with_pad_row(result.codes),
            vectors=with_pad_row(result.quantized.flatten(1).float()),
            codebooks=self.quantizer.codebooks.detach().float().clone(),
            last_residuals=with_pad_row(result.last_residual.float()),
        )

    def _all_z(self) -> Tensor:
        """Encode all items but [PAD] as z [n_items - 1, M, D], in blocks, without dropout."""
        with self._evaluating():
            items = torch.arange(1, self.n_items, device=self.quantizing.device)
            blocks = torch.split(items[part()], ENCODE_ITEMS)
            z = torch.cat([self.represent(block) for block in blocks])
            return rows_of_all(z, len(items))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Turn gradient, dropout and usage counts off for a while."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)


def with_pad_row(values: Tensor) -> Tensor:
    """Put a zero row before values [n, ...]: [n + 1, ...]."""
    return torch.cat([values.new_zeros(1, *values.shape[1:]), values])
