"""One ``fit`` for both phases: tokenize the items, then train the generator."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import torch
from recbole.utils import init_seed

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.collector import RankedCollector
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.run_files.checkpoint import (
    random_state,
    save_checkpoint,
    set_random_state,
)
from recbole_bbqrec.run_files.epochs import write_epochs
from recbole_bbqrec.runtime import peak_memory_mib
from recbole_bbqrec.tokenizer.collisions import count_collisions
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.phases.generate_phase import GeneratePhase
from recbole_bbqrec.trainer.phases.loop import LoopState, Phase, run_phase
from recbole_bbqrec.trainer.phases.tokenize_phase import TokenizePhase, ValidationRows
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints

TOKENIZE, GENERATE = TokenizePhase.name, GeneratePhase.name


@dataclass
class Progress:
    """How far a two-phase run has come."""

    loops: dict[str, LoopState] = field(
        default_factory=lambda: {TOKENIZE: LoopState(), GENERATE: LoopState()}
    )
    pending: dict[str, Any] | None = None  # a phase and its state, restored when it starts


class TwoPhaseTrainer(SafeCheckpoints):
    """Trains a :class:`~recbole_bbqrec.model.base.generative.GenerativeRecommender`.

    Phase one is skipped when ``tokenizer_path`` names the semantic IDs of an earlier run, phase
    two with ``tokenize_only``. Each phase starts from the run's seed, so that phase two is the
    same whether the IDs were made in this run or read from a file.
    """

    def __init__(self, config: RunConfig, model: Any) -> None:
        super().__init__(config, model)
        self.eval_collector = RankedCollector(config)
        self.progress = Progress()
        self.phase_seconds: dict[str, float] = {}
        self.tokenizer_summary: dict[str, Any] = {}

    def _build_optimizer(self, **kwargs: Any) -> Any:
        return None  # each phase builds its own when it starts

    # fit ------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Run both phases, or phase one alone.

        Returns:
            Best validation score and the metrics it comes with, of the last phase that ran; the
            score is minus infinity where that is a phase one without a validation signal.
        """
        files = self.files if saved else None
        valid_data = valid_data or None  # empty, where the split has no validation rows
        self.eval_collector.data_collect(train_data)
        dataset = train_data._dataset
        histories = Histories.from_training_data(dataset)
        self._tokenize(dataset, histories, valid_data, files, show_progress)
        if self.config["tokenize_only"]:
            first = self.progress.loops[TOKENIZE]
            return first.best_score, first.best_metrics
        phase = self._generate_phase(histories, valid_data, files)
        state = self.progress.loops[GENERATE]
        start = time.perf_counter()
        self._run(phase, files, show_progress, callback_fn)
        self.phase_seconds[GENERATE] = state.seconds or time.perf_counter() - start
        sign = 1.0 if self.valid_metric_bigger else -1.0
        self.best_valid_score = sign * state.best_score
        self.best_valid_result = state.best_metrics
        return self.best_valid_score, self.best_valid_result

    def _run(
        self,
        phase: Phase,
        files: Any,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> None:
        """Start ``phase`` from the seed, or where an interrupted run left it, and run it out."""
        state = self.progress.loops[phase.name]
        init_seed(self.config["seed"], self.config["reproducibility"])
        pending = self.progress.pending
        if pending is not None and pending["phase"] == phase.name:
            phase.load_state(pending["state"])
            set_random_state(pending["random"])
            self.progress.pending = None

        def checkpoint() -> None:
            if files is not None:
                save_checkpoint(self._resume_state(phase), files.resume)
                self._write_lines(files)

        def on_epoch(epoch: int, score: float | None) -> None:
            record = state.history[-1]
            record["learning_rate"] = phase.optimizer.param_groups[0]["lr"]
            record["peak_memory_mib"] = peak_memory_mib(self.device)
            self._log_epoch(record)
            if callback_fn is not None and score is not None:
                callback_fn(epoch, score)

        run_phase(phase, state, checkpoint, show_progress=show_progress, on_epoch=on_epoch)
        if files is not None:  # also after a kill between the two files of the last checkpoint
            self._write_lines(files)
        self.logger.info(
            f"{phase.name}: {state.epoch} epochs, {state.seconds:.1f} s, "
            f"best epoch {state.best_epoch} {_listed(state.best_metrics)}"
        )

    def _write_lines(self, files: Any) -> None:
        lines = [line for loop in self.progress.loops.values() for line in loop.history]
        # A state that an older version left has epochs in another form.
        write_epochs([line for line in lines if "phase" in line], files.epochs)

    # phase one ------------------------------------------------------------------------------

    def _tokenize(
        self, dataset: ItemDataset, histories: Histories, valid_data: Any, files: Any, show: bool
    ) -> None:
        path = self.config["tokenizer_path"]
        done = self.progress.loops[TOKENIZE].finished
        if path is None and done and files is not None and files.semantic_ids.is_file():
            path = files.semantic_ids  # a resumed run that had got past phase one
        if path is not None:
            semantic_ids = SemanticIds.load(Path(path))
            self.logger.info(f"tokenize: using the semantic IDs in {path}")
        else:
            semantic_ids = self._fit_tokenizer(dataset, histories, valid_data, files, show)
        self.tokenizer_summary = dict(semantic_ids.metadata)
        self.phase_seconds[TOKENIZE] = self.progress.loops[TOKENIZE].seconds
        codes, vectors = self._align(semantic_ids, dataset)
        books = semantic_ids.codebooks
        self.model.set_semantic_ids(codes.to(self.device), vectors.to(self.device), books)

    def _align(
        self, semantic_ids: SemanticIds, dataset: ItemDataset
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and vectors by the internal ids of this data set, or a UserError."""
        wanted = self.model.tokenizer_name()
        found = semantic_ids.metadata.get("tokenizer", wanted)
        if found != wanted:
            raise UserError(
                f"Option `tokenizer_path`: the semantic IDs come from the tokenizer of {found}; "
                f"{self.config['model']} is defined by that of {wanted}. Leave the option out."
            )
        return semantic_ids.align(
            dataset.item_tokens,
            self.config["dataset"],
            split_hash=self.split_hash or None,
            fingerprints={name: kept["fingerprint"] for name, kept in self.features.items()},
            levels=self.config["codebook_levels"],
            codebook_size=self.config["codebook_size"],
            width=self.model.vectors.shape[1],
            signals=self.model.signals_of(self.config),
        )

    def _fit_tokenizer(
        self, dataset: ItemDataset, histories: Histories, valid_data: Any, files: Any, show: bool
    ) -> SemanticIds:
        config = self.config
        init_seed(config["seed"], config["reproducibility"])
        trained = histories.trained_items(self.model.n_items)
        network = self.model.build_tokenizer(config, dataset, trained).to(self.device)
        self.logger.info(network)
        batches = HistoryBatches(
            histories,
            batch_size=config["tokenizer_batch_size"],
            max_length=config["MAX_ITEM_LIST_LENGTH"],
            encoding="causal",
            unit="histories",
            seed=config["seed"],
        )
        validation = None
        if valid_data is not None:
            sample = config["tokenizer_valid_users"]
            validation = ValidationRows.from_dataset(valid_data._dataset, sample, config["seed"])
        phase = TokenizePhase(config, network, batches, validation, files)
        self._run(phase, files, show)
        semantic_ids = self._semantic_ids(network, dataset)
        if files is not None:
            semantic_ids.save(files.semantic_ids)
        return semantic_ids

    def _semantic_ids(self, network: Any, dataset: ItemDataset) -> SemanticIds:
        """Tokenize all items and make the codes one-to-one; log both collision counts."""
        config = self.config
        result = network.tokenize()
        quantized = result.codes
        before, groups = count_collisions(quantized)
        result = self.model.make_unique(config, result)
        codes = result.codes
        after, _ = count_collisions(codes)
        self.logger.info(
            f"tokenize: {before} of {len(codes) - 1} items share their semantic ID with another "
            f"({groups} groups) before re-assignment, {after} after"
        )
        best = self.progress.loops[TOKENIZE]
        metadata: dict[str, Any] = {
            "dataset": config["dataset"],
            "split_hash": self.split_hash,
            "model": config["model"],
            "tokenizer": self.model.tokenizer_name(),
            "seed": config["seed"],
            "levels": config["codebook_levels"],
            "codebook_size": config["codebook_size"],
            "collisions_before": before,
            "collisions_after": after,
            "epoch": best.best_epoch,
        }
        for name in network.signals:
            if name in dataset.modalities:
                metadata[f"fingerprint_{name}"] = dataset.item_features(name).fingerprint
        return SemanticIds(
            item_tokens=tuple(dataset.item_tokens[1:]),
            codes=codes[1:].cpu(),
            vectors=result.vectors[1:].cpu(),
            codebooks=result.codebooks.cpu(),
            signals=tuple(network.signals),
            metadata=metadata,
            codes_before=quantized[1:].cpu(),
        )

    # phase two ------------------------------------------------------------------------------

    def _generate_phase(self, histories: Histories, valid_data: Any, files: Any) -> GeneratePhase:
        config = self.config
        batches = HistoryBatches(
            histories,
            batch_size=config["train_batch_size"],
            max_length=config["MAX_ITEM_LIST_LENGTH"],
            encoding=config["history_encoding"],
            unit="targets",
            seed=config["seed"],
        )

        def evaluate() -> dict[str, float]:
            return self.evaluate(valid_data, load_best_model=False)

        def save_model(epoch: int) -> None:
            if files is not None:
                self._save_checkpoint(epoch, verbose=False)

        def load_model() -> None:
            self.load_model_file(self.saved_model_file)

        return GeneratePhase(
            config,
            self.model,
            batches,
            evaluate if valid_data is not None and config["eval_step"] > 0 else None,
            save_model,
            load_model,
        )

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, _, positive_u, positive_i = batched_data
        ranked = self.model.rank_interaction(interaction.to(self.device))
        return interaction, ranked, positive_u, positive_i

    # resumption -----------------------------------------------------------------------------

    def _resume_state(self, phase: Phase) -> dict[str, Any]:
        return {
            "config": self.config.to_text(),
            "model": self.config["model"],
            "split_hash": self.split_hash,
            "features": self.features,
            "phase": phase.name,
            "loops": {name: loop.to_plain() for name, loop in self.progress.loops.items()},
            "state": phase.state(),
            "random": random_state(),
        }

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Continue an interrupted run from its ``resume.pth``.

        Raises:
            UserError: unreadable, or written for other data.
        """
        state = self._load_resume(resume_file)
        self.progress.loops = {name: LoopState(**loop) for name, loop in state["loops"].items()}
        self.seconds_before = sum(loop.seconds for loop in self.progress.loops.values())
        loop = self.progress.loops[state["phase"]]
        if not loop.finished:
            self.progress.pending = {key: state[key] for key in ("phase", "state", "random")}
        done = f"{loop.epoch} epochs done{', finished' if loop.finished else ''}"
        self.logger.info(f"Resuming {resume_file}: phase {state['phase']}, {done}")

    # logging --------------------------------------------------------------------------------

    def _log_epoch(self, record: dict[str, Any]) -> None:
        phase, epoch = record["phase"], record["epoch"]
        values = {**record["terms"], **record.get("valid", {})}
        values.update({f"{name}_seconds": value for name, value in record["seconds"].items()})
        if record.get("score") is not None:
            values["score"] = record["score"]
        self.logger.info(f"{phase} epoch {epoch}: {_listed(values)}")
        for name, value in values.items():
            self.tensorboard.add_scalar(f"{phase}/{name}", value, epoch)


def _listed(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
