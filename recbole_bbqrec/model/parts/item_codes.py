"""Product-quantization codes of the items, and the base class of VQ-Rec and RPG."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.base.checks import require_feature_dataset, require_modality
from recbole_bbqrec.model.base.history_model import HistoryRecommender
from recbole_bbqrec.model.baseline_settings import CodeSettings
from recbole_bbqrec.nn.transformer import INIT_STD, init_weights
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.tokenizer.opq import fit_opq, whiten

#: The modality whose features become codes; both papers quantize item text.
CODE_MODALITY = "text"


class _MeanOfRows(torch.autograd.Function):
    """Mean of table rows for every item, with a gradient that visits each row once.

    torch's gradient of ``embedding_bag`` sorts all (item, row) pairs at every step; here they are
    sorted once for all steps.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, holders: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(holders, starts)
        ctx.rows_of_an_item = rows.shape[1]
        return F.embedding_bag(rows, table, mode="mean")  # [n, H]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        holders, starts = ctx.saved_tensors
        share = gradient / ctx.rows_of_an_item  # [n, H]
        return F.embedding_bag(holders, share, starts, mode="sum"), None, None, None


class ItemCodes(nn.Module):
    """OPQ codes of every item's text and a learned embedding of each (digit, code).

    The codes are made on first use and stored in the checkpoint: a loaded model does not quantize
    again. Items without text get the codes of the average item. An item's vector is the
    mean of its code embeddings.

    Args:
        settings: ``code_digits`` is M, ``codebook_size`` K and ``hidden_size`` H; ``code_scale``
            the initial scale.
        dataset: a ``MultiModalDataset`` with text.
        seed: of the quantization.
    """

    codes: Tensor
    made: Tensor

    def __init__(self, settings: CodeSettings, dataset: ItemDataset, seed: int) -> None:
        super().__init__()
        self.digits, self.codebook_size = settings.code_digits, settings.codebook_size
        self.components, self.iterations = settings.code_components, settings.opq_iterations
        self.seed = seed
        # Not registered: needed once, on the CPU, and never saved.
        require_feature_dataset(dataset, "The model")
        self.features = dataset.item_features(CODE_MODALITY)
        width = self.features.matrix.shape[1]
        if self.digits > min(self.components or width, width):
            raise UserError(
                f"Option `code_digits` is {self.digits}; expected at most {width}, the width of "
                f"the {CODE_MODALITY} features: a digit codes one column or more. Lower it."
            )
        # A mean of M embeddings has the M-th part of their variance.
        scale = self.digits**0.5 if settings.code_scale == "item" else 1.0
        # [M * K, H]; row d * K + c is code c of digit d.
        self.code_embedding = nn.Parameter(
            torch.randn(self.digits * self.codebook_size, settings.hidden_size) * (INIT_STD * scale)
        )
        n_items = self.features.matrix.shape[0]
        self.register_buffer("codes", torch.zeros(n_items, self.digits, dtype=torch.int64))
        self.register_buffer("made", torch.tensor(False))
        self._holders: tuple[Any, Tensor, Tensor] | None = None

    def _apply(self, *args: Any, **kwargs: Any) -> ItemCodes:
        """Drop the cache on every move to a device: new memory may reuse a known address."""
        self._holders = None
        return super()._apply(*args, **kwargs)

    def make(self) -> None:
        """Quantize the items' text now."""
        features, present = self.features.matrix.float(), self.features.present
        if self.components:
            features = whiten(features, present, self.components)
        quantizer = fit_opq(
            features[present], self.digits, self.codebook_size,
            iterations=self.iterations, seed=self.seed,
        )  # fmt: skip
        average = features[present].mean(0)  # [dim]
        codes = quantizer.encode(torch.where(present.unsqueeze(1), features, average))
        self.codes.copy_(codes)
        self.codes[0] = 0
        self.made.fill_(True)
        distinct = len(torch.unique(codes[1:], dim=0))
        getLogger().info(
            f"OPQ: {distinct:,} distinct codes of {len(codes) - 1:,} items, mean squared error "
            f"{quantizer.errors[0]:.4f} without rotation, {quantizer.errors[-1]:.4f} with"
        )

    def rows(self, items: Tensor | None = None) -> Tensor:
        """Return the table rows of the items (None: all, [PAD] too), int64 [n, M]."""
        if not bool(self.made):
            self.make()
        codes = self.codes if items is None else self.codes[items]
        return codes + torch.arange(self.digits, device=codes.device) * self.codebook_size

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Return the mean code embedding of items int64 [n] (None: all), [n, H]."""
        rows = self.rows(items)
        if items is None:
            mean: Tensor = _MeanOfRows.apply(self.code_embedding, rows, *self._items_by_row(rows))
            return mean
        return F.embedding_bag(rows, self.code_embedding, mode="mean")

    def _items_by_row(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of each table row, row after row int64 [n * M], and each row's start.

        Cached while the codes are the same; a loaded checkpoint changes them in place.
        """
        key = (self.codes.data_ptr(), self.codes._version)
        if self._holders is None or self._holders[0] != key:
            flat = rows.flatten()  # [n * M]
            holders = flat.argsort(stable=True) // self.digits
            counts = torch.bincount(flat, minlength=len(self.code_embedding))  # [M * K]
            self._holders = (key, holders, counts.cumsum(0) - counts)
        return self._holders[1:]

    def table(self) -> Tensor:
        """Return the code embeddings by digit, [M, K, H]."""
        return self.code_embedding.view(self.digits, self.codebook_size, -1)

    def forward(self, items: Tensor) -> Tensor:
        """Look up items int64 [B, T] -> item vectors [B, T, H], each distinct item once."""
        distinct, place = torch.unique(items, return_inverse=True)
        return self.item_vectors(distinct)[place]


class CodeRecommender(HistoryRecommender):
    """A causal encoder over item vectors made of :class:`ItemCodes`; items have no other ID."""

    settings_class: type[CodeSettings] = CodeSettings
    settings: CodeSettings
    input_norm = True  # of item vectors, before the encoder's first layer

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        self.temperature = self.settings.temperature
        self.item_codes = ItemCodes(self.settings, dataset, config["seed"])
        self.encoder = self.causal_encoder(
            self.input_norm, norm_positions=self.settings.norm_positions
        )
        self.apply(init_weights)

    @classmethod
    def check_options(cls, config: RunConfig) -> None:
        super().check_options(config)
        require_modality(config, cls.__name__, CODE_MODALITY)

    def start_epoch(self, epoch: int) -> None:
        self.item_codes.rows()  # make the codes on first use; the trainer makes them equal

    def states(self, items: Tensor) -> Tensor:
        return self.encoder(self.item_codes(items))
