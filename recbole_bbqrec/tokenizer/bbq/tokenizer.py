"""BBQRec's phase-one network: behaviour-aligned multi-modal quantization (paper, 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from recbole_bbqrec.distributed.sums import mean, own_of, part, rows_of_all
from recbole_bbqrec.nn.transfer import send
from recbole_bbqrec.tokenizer.base import Pair, Pairs
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings
from recbole_bbqrec.tokenizer.bbq.signals import Features, SignalEncoder
from recbole_bbqrec.tokenizer.losses import ClubEstimator, info_nce, masked_mean
from recbole_bbqrec.tokenizer.network import QuantizingNetwork
from recbole_bbqrec.tokenizer.quantizer import Quantization, ResidualQuantizer
from recbole_bbqrec.tokenizer.sequence_encoders import SelfAttentionEncoder, SessionGraphEncoder


class BBQTokenizer(QuantizingNetwork):
    """Encoders, residual quantizer, decoders and sequence task of BBQRec.

    ``features`` maps a modality to (matrix float16/float32 [n_items, dim], present bool
    [n_items]). The signals are "id" (if ``config.use_id``) and the modalities in their order.
    ``trained_items`` bool [n_items] marks the items that occur in training. A missing modality,
    or the ID of an untrained item, has a learned vector in place of z. That vector is quantized
    like any other, but counts in the contrastive loss only; without that task it keeps its random
    start. Item vectors are z until ``quantizing`` (a buffer) is set, and sums of codes after.

    Variants: NoMIM ``use_mim=False``; NoRec ``use_contrastive=False, use_id=False``; NoU
    ``share_codebook=False``; NoID ``use_id=False``; NoText and NoImage leave the modality out of
    ``features``. Raises ValueError when no signal is left or a shape does not fit.
    """

    def __init__(
        self, config: BBQSettings, features: Features, n_items: int, trained_items: Tensor
    ) -> None:
        super().__init__(n_items)
        self.config = config
        self.encoder = SignalEncoder(config, features, n_items, trained_items)
        self.modalities = self.encoder.modalities
        self._commitment = {signal: config.commitment_of(signal) for signal in self.signals}
        dim, n_signals = config.codebook_dim, len(self.signals)
        self.estimators = nn.ModuleDict()
        if config.use_mim:
            for name in self.modalities:
                self.estimators[name] = ClubEstimator(
                    dim, dim, config.mim_hidden, config.mim_reduction
                )
        self.set_quantizer(
            ResidualQuantizer(
                config.levels, config.codebook_size, dim, n_signals,
                n_codebook_sets=1 if config.share_codebook else n_signals,
            )
        )  # fmt: skip
        self.sequence_encoder: nn.Module | None = None
        if config.use_contrastive:
            self.sequence_encoder = _sequence_encoder(config, n_signals * dim)

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the M signals: "id" first if used, then the modalities."""
        return self.encoder.signals

    @property
    def has_sequence_encoder(self) -> bool:
        """True with the contrastive task, whose states :meth:`sequence_states` returns."""
        return self.sequence_encoder is not None

    def estimator_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of q_theta(zbar | z); empty without disentangling."""
        return self.estimators.parameters()

    # ---- representations ---------------------------------------------------------------

    def encode(self, items: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode items int64 [U] as z [U, M, D] and zbar [U, D] by modality (none without MIM)."""
        inputs = self.encoder.inputs(items)
        return self.encoder.behaviour(items, inputs), self.encoder.specific(inputs)

    def represent(self, items: Tensor) -> Tensor:
        """Encode items int64 [U] as z [U, M, D]."""
        return self.encode(items)[0]

    def signals_present(self) -> Tensor:
        """Mask bool [n_items, M] of the signals that items have; an ID counts if it is trained."""
        return self.encoder.present

    # ---- losses ------------------------------------------------------------------------

    @torch.no_grad()
    def mim_pairs(self, items: Tensor) -> Pairs:
        """Return detached (z, zbar, mask) by modality for items int64 [U]; empty without MIM."""
        if not self.config.use_mim:
            return {}
        z, zbar = self.encode(items)
        return {name: self._pair(name, items, z, zbar[name]) for name in self.modalities}

    def _pair(self, name: str, items: Tensor, z: Tensor, zbar: Tensor) -> Pair:
        signal = self.signals.index(name)
        return z[:, signal], zbar, self.encoder.present[items, signal]

    def _estimator(self, name: str) -> ClubEstimator:
        return cast(ClubEstimator, self.estimators[name])

    def estimator_loss(self, pairs: Pairs) -> Tensor:
        """Sum the estimators' negative log-likelihoods over the modalities."""
        terms = [
            self._estimator(name).negative_log_likelihood(*pair) for name, pair in pairs.items()
        ]
        return torch.stack(terms).sum()

    def losses(self, items: Tensor, sequences: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return every term of Eq. 13, unweighted, and "total", their weighted sum to minimise.

        items int64 [U] are reconstructed; sequences and targets int64 [B, T] are those of a
        history batch and hold training items only. Each item is encoded once. Keys: total,
        contrastive, reconstruction/<modality>, mim/<modality>, codebook/<signal>,
        commitment/<signal>; a variant has the keys of its terms only. Of several processes, which
        get the same arguments, each returns its part of every term; the parts add up. Arguments on
        the CPU spare it every wait for the device: the indices of a step are found there.
        """
        items, sequences, targets = items.cpu(), sequences.cpu(), targets.cpu()
        own = torch.unique(items[items > 0])  # [U']
        used = own
        if self.sequence_encoder is not None:
            used = torch.unique(torch.cat([own, sequences.flatten(), targets.flatten()]))
            used = used[used > 0]  # [W], sorted
        rows = _Rows(used, own, self.quantizing.device)
        mine = send(used[part()], rows.device)  # [w]: each process encodes a part of the items
        inputs = self.encoder.inputs(mine)
        z = self.encoder.behaviour(mine, inputs)  # [w, M, D]
        present = self.encoder.present[mine] & rows.mask.unsqueeze(-1)  # [w, M]
        quantization = self._quantized(z, present)
        terms = self._quantization_terms(quantization)
        own_inputs = {name: rows.select(x) for name, x in inputs.items()}
        own_z, quantized = rows.select(z), rows.select(quantization.quantized_ste)
        terms.update(self._modality_terms(rows.select(mine), own_inputs, own_z, quantized))
        if self.sequence_encoder is not None:
            vectors = rows_of_all(quantization.quantized_ste.flatten(1), len(used))  # [W, V]
            terms["contrastive"] = self._contrastive(used, vectors, sequences, targets)
        terms["total"] = self._total(terms)
        return terms

    def _quantization_terms(self, quantization: Quantization) -> dict[str, Tensor]:
        scale = 1 / self.config.codebook_dim if self.config.recon_reduction == "mean" else 1.0
        terms = {}
        for index, signal in enumerate(self.signals):
            terms[f"codebook/{signal}"] = scale * quantization.codebook_loss[index]
            terms[f"commitment/{signal}"] = scale * quantization.commitment_loss[index]
        return terms

    def _modality_terms(
        self, items: Tensor, inputs: dict[str, Tensor], z: Tensor, quantized: Tensor
    ) -> dict[str, Tensor]:
        """Reconstruction (Eqs. 8, 9) and mutual-information terms (Eq. 3) of items [U]."""
        zbar = self.encoder.specific(inputs)
        terms = {}
        for name in self.modalities:
            signal = self.signals.index(name)
            mask = self.encoder.present[items, signal].float()  # [U]
            output = self.encoder.tower(name).reconstruct(quantized[:, signal], zbar.get(name))
            error = (output - inputs[name]).pow(2)  # [U, dim]
            error = error.mean(-1) if self.config.recon_reduction == "mean" else error.sum(-1)
            terms[f"reconstruction/{name}"] = masked_mean(error, mask)
            if name in zbar:
                pair = self._pair(name, items, z, zbar[name])
                terms[f"mim/{name}"] = self._estimator(name).upper_bound(*pair)
        return terms

    def _contrastive(
        self, used: Tensor, vectors: Tensor, sequences: Tensor, targets: Tensor
    ) -> Tensor:
        """Eqs. 10-12, mean over positions with a target; vectors [W, V] of the items used [W].

        The items are on the CPU.
        """
        device = vectors.device
        table = torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])  # [1 + W, V]
        known = torch.cat([used.new_zeros(1), used])  # sorted: an item's rank is its row
        rows = torch.searchsorted(known, sequences[part()].contiguous())  # [b, T]
        states = self.sequence_states(send(rows, device), table)  # [b, T, V]
        valid = targets > 0  # [B, T]
        items = targets[valid]  # [P]
        if len(items) == 0:
            return states.sum() * 0
        target_vectors = table[send(torch.searchsorted(known, items), device)]  # [P, V]
        place = valid[part()].flatten().nonzero().squeeze(1)  # [p]
        chosen = states.flatten(0, 1)[send(place, device)]
        return mean(info_nce(chosen, target_vectors, items, self.config.temperature, own_of(valid)))

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the terms (Eq. 13)."""
        weights = {
            "mim": self.config.mim_weight, "contrastive": self.config.contrastive_weight,
        }  # fmt: skip
        parts = []
        for key, term in terms.items():
            kind, _, name = key.partition("/")
            weight = self._commitment[name] if kind == "commitment" else weights.get(kind, 1.0)
            parts.append(weight * term)
        return reduce(torch.add, parts)

    def sequence_states(self, sequences: Tensor, all_vectors: Tensor) -> Tensor:
        """States h_t [B, T, V] of Eq. 10 for sequences [B, T] over vectors [n_items, V]."""
        if self.sequence_encoder is None:
            raise ValueError("this variant has no sequence encoder (use_contrastive is false)")
        return self.sequence_encoder(all_vectors[sequences], sequences)


def _sequence_encoder(config: BBQSettings, vector_dim: int) -> nn.Module:
    """Build f of Eq. 10 for item vectors of width ``vector_dim``."""
    hidden, layers = config.sequence_hidden_size, config.sequence_layers
    if config.sequence_encoder == "srgnn":
        return SessionGraphEncoder(vector_dim, hidden, layers, config.max_history)
    return SelfAttentionEncoder(
        vector_dim, hidden, layers, config.sequence_heads, config.max_history,
        config.sequence_dropout,
    )  # fmt: skip


class _Rows:
    """Rows of the sorted items ``own`` [U] in this process's part [w] of the superset ``used``.

    The items are on the CPU, and the rows of them on ``device``.
    """

    def __init__(self, used: Tensor, own: Tensor, device: torch.device) -> None:
        self.everything = len(own) == len(used)
        self.device = device
        mask = torch.zeros_like(used, dtype=torch.bool)
        mask[torch.searchsorted(used, own)] = True
        mask = mask[part()]  # [w]
        self.mask, self.index = send((mask, mask.nonzero().squeeze(1)), device)

    def select(self, values: Tensor) -> Tensor:
        """Select the rows of values [w, ...] that belong to ``own``; no copy if all do."""
        return values if self.everything else values[self.index]
