"""One ``fit`` for both phases: tokenize the items, then train the generator."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Callable

from recbole.utils import init_seed

from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.distributed.group import from_main, is_main, same
from recbole_bbqrec.metrics.collector import RankedCollector
from recbole_bbqrec.protocols import ItemDataset, RunConfig
from recbole_bbqrec.run_files.checkpoint import (
    random_state,
    reading_checkpoint,
    save_checkpoint,
    set_random_state,
)
from recbole_bbqrec.run_files.console import DETAIL
from recbole_bbqrec.runtime import peak_memory_mib
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.phases.catalogue_ids import align_semantic_ids, make_semantic_ids
from recbole_bbqrec.trainer.phases.generate_phase import GeneratePhase
from recbole_bbqrec.trainer.phases.loop import LoopState, Phase, run_phase
from recbole_bbqrec.trainer.phases.nan_check import NanCheck
from recbole_bbqrec.trainer.phases.tokenize_phase import TokenizePhase, ValidationRows
from recbole_bbqrec.trainer.recbole_trainer import SafeCheckpoints, says_what_is_saved

TOKENIZE, GENERATE = TokenizePhase.name, GeneratePhase.name


class TwoPhaseTrainer(SafeCheckpoints):
    """Trains a :class:`~recbole_bbqrec.model.base.generative.GenerativeRecommender`.

    Phase one is skipped when ``tokenizer_path`` names the semantic IDs of an earlier run, phase
    two with ``tokenize_only``. Each phase starts from the run's seed, so that phase two is the
    same whether the IDs were made in this run or read from a file.
    """

    def __init__(self, config: RunConfig, model: Any) -> None:
        super().__init__(config, model)
        self.eval_collector = RankedCollector(config)
        if config["log_wandb"]:  # each phase has its own axis, as RecBole's train and valid
            for name in (TOKENIZE, GENERATE):
                self.wandblogger._wandb.define_metric(f"{name}/*", step_metric=f"{name}_step")
        self.loops = {TOKENIZE: LoopState(), GENERATE: LoopState()}
        self.phase_seconds: dict[str, float] = {}
        self.tokenizer_summary: dict[str, Any] = {}
        self._show_progress = False
        self._callback_fn: Callable[[int, float], None] | None = None

    def _build_optimizer(self, **kwargs: Any) -> Any:
        return None  # each phase builds its own when it starts

    # fit ------------------------------------------------------------------------------------

    @says_what_is_saved
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
            Best validation score and its metrics, of the last phase that ran; the score is minus
            infinity where that is a phase one without a validation signal.
        """
        self.files = self.files if saved else None
        self._show_progress, self._callback_fn = show_progress, callback_fn
        self.eval_collector.data_collect(train_data)
        dataset = train_data._dataset
        valid_data = valid_data or None  # RecBole's loader of no rows is empty, not None
        histories = Histories.from_training_data(dataset)
        self._tokenize(dataset, histories, valid_data)
        if self.config["tokenize_only"]:
            state = self.loops[TOKENIZE]
            return state.best_score, state.best_metrics
        state = self._run(self._generate_phase(histories, valid_data))
        self.phase_seconds[GENERATE] = state.seconds
        self.best_valid_score = state.best_score if self.valid_metric_bigger else -state.best_score
        self.best_valid_result = state.best_metrics
        return self.best_valid_score, self.best_valid_result

    def _run(self, phase: Phase) -> LoopState:
        """Start ``phase`` from the seed, or where an interrupted run left it, and finish it."""
        state = self.loops[phase.name]
        phase.check = NanCheck(self.files, phase.name, self.device)
        init_seed(self.config["seed"], self.config["reproducibility"])
        if self._pending is not None and self._pending["phase"] == phase.name:
            with reading_checkpoint(self._resumed):
                phase.load_state(self._pending["state"])
                set_random_state(self._pending["random"])
            self._pending = None
        run_phase(
            phase,
            state,
            partial(self._checkpoint, phase),
            show_progress=self._show_progress,
            on_epoch=partial(self._complete, phase),
            on_saved=partial(self._log_epoch, phase),
        )
        self._write_epochs()  # also after a kill between the two files of the last checkpoint
        self.logger.info(
            f"{phase.name}: {state.epoch} epochs, {state.seconds:.1f} s, "
            f"best epoch {state.best_epoch} {_listed(state.best_metrics)}"
        )
        return state

    # phase one ------------------------------------------------------------------------------

    def _tokenize(self, dataset: ItemDataset, histories: Histories, valid_data: Any) -> None:
        """Give the model its semantic IDs: from a file, or from a network trained now."""
        path = self.config["tokenizer_path"] or from_main(self._made_before)
        if path is not None:
            semantic_ids = from_main(lambda: SemanticIds.load(Path(path)))
            self.logger.info(f"tokenize: using the semantic IDs in {path}")
        else:
            semantic_ids = self._fit_tokenizer(dataset, histories, valid_data)
        self.tokenizer_summary = dict(semantic_ids.metadata)
        self.phase_seconds[TOKENIZE] = self.loops[TOKENIZE].seconds
        codes, vectors = align_semantic_ids(
            semantic_ids,
            self.config,
            self.model,
            dataset,
            split_hash=self.split_hash,
            features=self.features,
        )
        codes, vectors = codes.to(self.device), vectors.to(self.device)
        self.model.set_semantic_ids(codes, vectors, semantic_ids.codebooks)

    def _made_before(self) -> Path | None:
        """Return the file of semantic IDs if this run finished phase one and was interrupted."""
        if self.files is None or not self.loops[TOKENIZE].finished:
            return None
        return self.files.semantic_ids if self.files.semantic_ids.is_file() else None

    def _fit_tokenizer(
        self, dataset: ItemDataset, histories: Histories, valid_data: Any
    ) -> SemanticIds:
        """Train the phase-one network, tokenize the items with it, and write their IDs."""
        init_seed(self.config["seed"], self.config["reproducibility"])
        trained = histories.trained_items(self.model.n_items)
        network = self.model.build_tokenizer(self.config, dataset, trained).to(self.device)
        self.logger.info(network, extra=DETAIL)
        state = self._run(self._tokenize_phase(network, histories, valid_data))
        semantic_ids = same(
            make_semantic_ids(
                self.config,
                self.model,
                network,
                dataset,
                split_hash=self.split_hash,
                best_epoch=state.best_epoch,
            )
        )
        if self.files is not None and is_main():
            semantic_ids.save(self.files.semantic_ids)
        return semantic_ids

    def _tokenize_phase(self, network: Any, histories: Histories, valid_data: Any) -> TokenizePhase:
        config = self.config
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
        return TokenizePhase(config, network, batches, validation, self.files)

    # phase two ------------------------------------------------------------------------------

    def _generate_phase(self, histories: Histories, valid_data: Any) -> GeneratePhase:
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
            if self.files is not None:
                self._save_checkpoint(epoch, verbose=False)

        def load_model() -> None:
            self.load_model_file(self.saved_model_file)

        validates = valid_data is not None and config["eval_step"] > 0
        return GeneratePhase(
            config, self.model, batches, evaluate if validates else None, save_model, load_model
        )

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, _, positive_u, positive_i = batched_data
        ranked = self.model.rank_interaction(interaction.to(self.device))
        return interaction, ranked, positive_u, positive_i

    # resumption -----------------------------------------------------------------------------

    def _checkpoint(self, phase: Phase) -> None:
        """Write all that the run needs to continue, and the lines of its epochs."""
        if self.files is None:
            return
        state = {
            **self._identity(),
            "phase": phase.name,
            "loops": {name: loop.to_plain() for name, loop in self.loops.items()},
            "state": phase.state(),
            "random": random_state(),
        }
        save_checkpoint(state, self.files.resume)
        self._write_epochs()

    def save_start(self, train_data: Any, valid_data: Any) -> None:
        """Write the state of a run whose phase one is done and whose phase two is to begin.

        The run starts phase two with the present weights of the model when it is resumed. Its
        semantic IDs are to lie in its files.
        """
        histories = Histories.from_training_data(train_data._dataset)
        self.loops[TOKENIZE].finished = True
        phase = self._generate_phase(histories, valid_data or None)
        init_seed(self.config["seed"], self.config["reproducibility"])
        self._checkpoint(phase)

    def _write_epochs(self) -> None:
        lines = [line for loop in self.loops.values() for line in loop.history]
        # A resume.pth of a pre-release version has lines of another form.
        self.epoch_lines = [line for line in lines if "phase" in line]
        super()._write_epochs()

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Continue an interrupted run from its ``resume.pth``.

        Raises:
            UserError: unreadable, or written for other data.
        """
        with reading_checkpoint(resume_file):
            state = self._load_resume(resume_file)
            loops = {name: LoopState(**state["loops"][name]) for name in self.loops}
            self.seconds_before = sum(loop.seconds for loop in loops.values())
            loop = loops[state["phase"]]
            self.loops, self._resumed = loops, resume_file
            if not loop.finished:
                self._pending = {key: state[key] for key in ("phase", "state", "random")}
        done = f"{loop.epoch} epochs done{', finished' if loop.finished else ''}"
        self.logger.info(f"Resuming {resume_file}: phase {state['phase']}, {done}")

    # logging --------------------------------------------------------------------------------

    def _complete(self, phase: Phase, record: dict[str, Any]) -> None:
        """Add to an epoch's record what the loop does not know."""
        record["learning_rate"] = phase.last_rate
        record["peak_memory_mib"] = peak_memory_mib(self.device)

    def _log_epoch(self, phase: Phase, record: dict[str, Any]) -> None:
        """Send an epoch's values to the log, TensorBoard, W&B and the callback."""
        epoch, score = record["epoch"], record.get("score")
        values = {**record["terms"], **record.get("valid", {})}
        values.update({f"{name}_seconds": value for name, value in record["seconds"].items()})
        if score is not None:
            values["score"] = score
        self.logger.info(f"{phase.name} epoch {epoch}: {_listed(values)}")
        for name, value in values.items():
            self.tensorboard.add_scalar(f"{phase.name}/{name}", value, epoch)
        self._log_to_wandb(phase, values, record)
        if self._callback_fn is not None and score is not None:
            self._callback_fn(epoch, score)

    def _log_to_wandb(self, phase: Phase, values: dict[str, float], record: dict[str, Any]) -> None:
        """Send an epoch's values to W&B; those of phase two also under RecBole's names.

        There they stand in the charts of single-phase models.
        """
        epoch, log = record["epoch"], self.wandblogger.log_metrics
        log({**values, "epoch": epoch, f"{phase.name}_step": epoch}, head=phase.name)
        if phase.name != GENERATE:
            return
        loss = record["terms"][phase.objective]
        log({"epoch": epoch, "train_loss": loss, "train_step": epoch}, head="train")
        if record.get("valid"):
            done = sum("valid" in line for line in self.loops[GENERATE].history)
            log({**record["valid"], "valid_step": done - 1}, head="valid")


def _listed(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
