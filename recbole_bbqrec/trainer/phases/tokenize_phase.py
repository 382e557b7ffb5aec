"""Phase one as a trainable phase: fit the tokenizer network (paper, 4.1)."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LRScheduler

from recbole_bbqrec.data.histories import HistoryBatch, HistoryBatches
from recbole_bbqrec.distributed import sums
from recbole_bbqrec.nn import optim
from recbole_bbqrec.nn.kmeans import NotFiniteError
from recbole_bbqrec.nn.transfer import send
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.run_files.checkpoint import (
    load_checkpoint,
    load_weights,
    require_keys,
    save_checkpoint,
)
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.runtime import autocast, resolve_precision
from recbole_bbqrec.tokenizer.collisions import count_collisions
from recbole_bbqrec.trainer.phases.loop import Phase, Validation

_RECALL_AT = 10  # cut-off of the recall that judges a state
_RANKED_AT_ONCE = 512  # histories per batch of validation
_UNDECAYED = ("codebooks", "embedding", "missing", "position")


@dataclass(frozen=True)
class ValidationRows:
    """Histories and the item after each: int64 items [n, T], lengths [n], targets [n]."""

    items: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def from_dataset(cls, dataset: ItemDataset, sample: int, seed: int) -> ValidationRows:
        """Return the rows of RecBole's validation split, or ``sample`` of them (0: all)."""
        rows = dataset.inter_feat
        suffix = dataset.config["LIST_SUFFIX"]
        n = len(rows)
        if 0 < sample < n:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(n, generator=generator)[:sample].sort().values
        else:
            chosen = torch.arange(n)
        rows = rows[chosen]
        return cls(
            rows[dataset.iid_field + suffix],
            rows[dataset.item_list_length_field],
            rows[dataset.iid_field],
        )


class TokenizePhase(Phase):
    """Trains a phase-one network on training histories and the whole catalogue.

    The contrastive task of a step sees a batch of histories. Reconstruction, quantization and
    mutual information see the items of these histories plus a slice of the catalogue, so that an
    epoch covers every item. A network without sequences sees the slices alone.

    The best state has the highest recall of h.v on the validation split, among the states in which
    the share of colliding items is at most ``tokenizer_max_collisions``. Without a sequence encoder
    it is the last.
    """

    name = "tokenize"
    rate_option = "tokenizer_learning_rate"
    objective = "total"

    def __init__(
        self,
        config: RunConfig,
        network: Any,
        batches: HistoryBatches,
        validation: ValidationRows | None,
        files: RunFiles | None,
    ) -> None:
        self.network, self.batches = network, batches
        self.validation, self.files = validation, files
        self.device = torch.device(config["device"])
        self.dtype = resolve_precision(config["precision"], self.device)
        self.seed = config["seed"]
        self.epochs = config["tokenizer_epochs"]
        self.eval_step = 1
        self.stopping_step = config["tokenizer_stopping_step"]
        self.warmup_epochs = config["tokenizer_warmup_epochs"]
        self.max_collisions = config["tokenizer_max_collisions"]
        self.inner_steps = config["mim_inner_steps"]
        self.batch_size = config["tokenizer_batch_size"]
        self.learning_rate = config["tokenizer_learning_rate"]
        self.n_items = network.n_items
        n_slices = math.ceil((self.n_items - 1) / self.batch_size)
        self.n_steps = len(batches) if network.uses_sequences else n_slices
        estimators = list(network.estimator_parameters())
        own = {id(p) for p in network.main_parameters()}
        self.optimizer = optim.build_optimizer(
            ((n, p) for n, p in network.named_parameters() if id(p) in own),
            learning_rate=self.learning_rate,
            weight_decay=config["tokenizer_weight_decay"],
            undecayed=_UNDECAYED,
        )
        # q_theta has its own optimizer: it is fitted by likelihood on detached pairs (Eq. 3).
        self.estimator_optimizer = (
            torch.optim.Adam(estimators, lr=config["mim_learning_rate"]) if estimators else None
        )
        self.best: dict[str, torch.Tensor] = {}

    def steps(self, epoch: int) -> int:
        return self.n_steps

    def train_epoch(
        self, epoch: int, on_step: Callable[[Mapping[str, torch.Tensor]], None]
    ) -> None:
        self.network.train()
        sums.synchronise(self.network)
        sums.draw_apart(self.seed, epoch)
        if epoch == 0:
            self.network.prepare(self.seed)
        else:
            generator = torch.Generator().manual_seed(self.seed + epoch - 1)
            self.network.start_of_epoch(generator)
        if epoch == self.warmup_epochs:
            self._initialise_codebooks()
        schedule = optim.cosine_schedule(
            self.optimizer,
            self.learning_rate,
            total=self.epochs * self.n_steps,
            done=epoch * self.n_steps,
        )
        for batch, extra in zip(self._histories(epoch), self._catalogue_slices(epoch)):
            items = torch.cat([batch.items.flatten(), batch.targets.flatten(), extra])
            items = torch.unique(items[items > 0])
            on_step(self._step(items, batch, schedule, epoch))

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Return statistics of the codes."""
        statistics: dict[str, float] = self.network.end_of_epoch()
        return statistics

    def _initialise_codebooks(self) -> None:
        try:
            self.network.initialise_codebooks(self.seed)
        except NotFiniteError as error:  # a last step's loss is computed before its update
            raise self.diverged("the encoders' output is not finite") from error

    def _step(
        self,
        items: torch.Tensor,
        batch: HistoryBatch,
        schedule: LRScheduler | None = None,
        epoch: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Fit the estimators, then the network; return the loss terms.

        Items and batch are on the CPU, wherever the network is, see :meth:`BBQTokenizer.losses`.
        """
        terms: dict[str, torch.Tensor] = {}
        if self.estimator_optimizer is not None:
            terms["estimator"] = self._fit_estimators(self.estimator_optimizer, items)
        self.before_loss()
        with self._autocast():
            terms.update(self.network.losses(items, batch.items, batch.targets))
        read = {"rows": items, "items": batch.items, "targets": batch.targets}
        self.after_loss(terms["total"], read, self.network, epoch)
        self.last_rate = optim.step(terms["total"], self.network, self.optimizer, schedule=schedule)
        return terms

    def _fit_estimators(
        self, optimizer: torch.optim.Optimizer, items: torch.Tensor
    ) -> torch.Tensor:
        """Take ``mim_inner_steps`` likelihood steps of q_theta (Eq. 3); return the last loss."""
        sample = torch.randperm(len(items), device=self.device)[: self.batch_size]
        sample = sums.of_main(sample)[sums.part()]
        with self._autocast():
            pairs = self.network.mim_pairs(send(items, self.device)[sample])
        for _ in range(self.inner_steps):
            with self._autocast():
                likelihood: torch.Tensor = self.network.estimator_loss(pairs)
            optim.step(likelihood, self.network, optimizer)
        return likelihood

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context for one forward pass: it caches its first casts of the weights."""
        return autocast(self.dtype, self.device)

    def _catalogue_slices(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """Return all item ids in random order, one slice for each step of the epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.n_items - 1, generator=generator) + 1
        return torch.tensor_split(order, self.n_steps)

    def _histories(self, epoch: int) -> Iterator[HistoryBatch]:
        """Return the epoch's batches of histories; empty ones without end if none are used."""
        if self.network.uses_sequences:
            return self.batches.epoch(epoch)
        nothing = torch.zeros(0, 1, dtype=torch.int64)
        return itertools.repeat(HistoryBatch(nothing, nothing, nothing[:, 0]))

    @torch.no_grad()
    def validate(self, epoch: int) -> Validation:
        network = self.network
        network.eval()
        metrics: dict[str, float] = {}
        quantizing = epoch >= self.warmup_epochs
        collided = 0.0
        if quantizing:
            items, groups = count_collisions(network.tokenize().codes)
            metrics["collisions/items"], metrics["collisions/groups"] = float(items), float(groups)
            collided = items / max(1, self.n_items - 1)
        if self.validation is None or not network.has_sequence_encoder:
            return Validation(None, metrics)  # no validation signal
        metrics[f"recall@{_RECALL_AT}"] = self._recall(self.validation)
        if not quantizing:
            return Validation(-1.0, metrics)
        # States that collide too much rank below all others, fewer collisions first.
        score = metrics[f"recall@{_RECALL_AT}"] if collided <= self.max_collisions else -collided
        return Validation(score, metrics)

    def _recall(self, rows: ValidationRows) -> float:
        """Return the share of rows whose next item is among the ten with the highest cos(h, v)."""
        vectors = self.network.item_vectors()  # [n_items, V]
        normalised = F.normalize(vectors, dim=-1)
        hits = torch.zeros((), dtype=torch.int64)
        chunks = zip(
            *(part.split(_RANKED_AT_ONCE) for part in (rows.items, rows.lengths, rows.targets))
        )
        for items, lengths, targets in list(chunks)[sums.part()]:
            items, lengths = items.to(self.device), lengths.to(self.device)
            states = self.network.sequence_states(items[:, : int(lengths.max())], vectors)
            last = states[torch.arange(len(items), device=self.device), lengths - 1]  # [b, V]
            scores = last @ normalised.T  # [b, n_items]; the norm of h does not change a ranking
            scores[:, 0] = -torch.inf
            top = scores.topk(min(_RECALL_AT, self.n_items - 1), dim=1).indices
            hits += int((top == targets.to(self.device).unsqueeze(1)).sum())
        return int(sums.total(hits)) / max(1, len(rows.targets))

    # state ----------------------------------------------------------------------------------

    def keep_best(self) -> None:
        self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        if self.files is not None:
            save_checkpoint({"state_dict": self.best}, self.files.tokenizer_network)

    def load_best(self) -> None:
        if not self.best and self.files is not None:
            path = self.files.tokenizer_network
            state = load_checkpoint(path, self.device)
            require_keys(state, ["state_dict"], path)
            load_weights(self.network, state["state_dict"], path)
            return
        self.network.load_state_dict(self.best)

    def state(self) -> dict[str, Any]:
        estimator = self.estimator_optimizer
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "estimator_optimizer": None if estimator is None else estimator.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.estimator_optimizer is not None:
            self.estimator_optimizer.load_state_dict(state["estimator_optimizer"])
