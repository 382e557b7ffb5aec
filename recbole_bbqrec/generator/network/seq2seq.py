"""The phase-two network: an encoder-decoder transformer over semantic IDs (Eq. 1, 14-17)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from recbole_bbqrec.generator.batch.encoded_history import Memory
from recbole_bbqrec.generator.batch.packing import Packing
from recbole_bbqrec.generator.head.item_head import ItemHead, NoItemHead
from recbole_bbqrec.generator.head.losses import Loss, code_loss, item_loss
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.network import stored_names
from recbole_bbqrec.generator.network.code_decoder import CodeDecoder
from recbole_bbqrec.generator.network.history_encoder import HistoryEncoder
from recbole_bbqrec.generator.network.training_batch import TrainingBatch
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.nn.transfer import send


class Generator(nn.Module):
    """Predicts the next item's semantic ID, level by level (Eq. 1)."""

    def __init__(self, config: GeneratorSettings) -> None:
        super().__init__()
        self.config = config
        # The order of random draws decides the initial weights: keep it.
        self.encoder = HistoryEncoder(config)
        self.decoder = CodeDecoder(config)
        self.item_head: ItemHead | NoItemHead
        self.item_head = ItemHead(config) if config.item_head else NoItemHead()
        self._initialise()
        stored_names.register(self)

    def _initialise(self) -> None:
        std = self.config.initializer_range
        for parameter in (self.encoder.level, self.decoder.level):
            nn.init.normal_(parameter, 0.0, std)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, std)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Features have a mean square of one, vectors unit length: mapped, either is as large as
        # the embeddings beside it.
        scale = max(1, self.config.feature_dim) ** -0.5
        for module in (self.item_head.content, self.encoder.features):
            for weight in module.parameters():
                nn.init.normal_(weight, 0.0, std * scale)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield as ``nn.Module`` does, in the order of checkpoints.

        An optimizer's stored state goes by that order, and so does the rounding of a gradient's
        norm.
        """
        pairs = super().named_parameters(prefix, recurse, remove_duplicate)
        return stored_names.in_order(pairs, prefix and f"{prefix}.")

    def encode(self, catalogue: Catalogue, items: Tensor, cells: Packing | None = None) -> Memory:
        """Encode histories ``items`` int64 [B, T], see :class:`HistoryEncoder`."""
        memory: Memory = self.encoder(catalogue, items, cells)
        return memory

    def logits(self, memory: Memory, hidden: Tensor, level: int) -> Tensor:
        """Return logits of a level's codes, see :class:`TiedCodeHead`: [..., d] -> [..., M * N]."""
        logits: Tensor = self.decoder.head(hidden, memory.table, level)
        return logits

    def loss(self, catalogue: Catalogue, items: Tensor, targets: Tensor) -> Loss:
        """Minus log-probability of an item, averaged over the targets.

        ``items``, ``targets``: int64 [B, T]; ``targets[b, t]`` is the item to predict after
        ``items[b, :t+1]``, 0 for none. Bidirectional encoding admits one target a row, at its
        last item. Both are trusted, see :mod:`~recbole_bbqrec.generator.batch.checks`. They are
        best on the CPU, wherever the network is: a step then never waits for the device. Returns
        the scalar loss and its detached terms, ``level_1`` .. ``level_L``.
        """
        layout = TrainingBatch.of(self.config, catalogue, items, targets)
        batch = send(layout, catalogue.codes.device)
        memory = self.encode(catalogue, batch.items, batch.cells)
        codes = catalogue.codes[batch.targets]  # [n, L, M]
        prefix = codes[:, : batch.steps.levels - 1]
        rest = self.decoder.keys_values(memory), prefix, batch.slots, batch.position, batch.steps
        if batch.paths is None:
            hidden = self.decoder.every_level(memory, *rest)
            logits = [self.logits(memory, hidden[:, j], j) for j in range(self.config.levels)]
            return code_loss(logits, codes, self.config.label_smoothing)
        rows = self.decoder(memory, *rest)  # [R, d]
        sample = batch.sample
        held = None if sample is None else sample.held
        scores = self.item_head.at_targets(
            catalogue, memory, batch.rows, batch.last, self.encoder.items, held
        )
        rows = self.item_head.dropout(rows)
        logits = [self.logits(memory, row, j) for j, row in enumerate(batch.paths.rows(rows))]
        return item_loss(logits, catalogue.trie, codes, batch.paths, batch.runs, scores, sample)
