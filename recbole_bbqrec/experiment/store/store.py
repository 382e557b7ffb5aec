"""The run store: every run is made once and found again by its key.

``<root>/<Dataset>/<Model>/<seed>-<key>/`` holds one run: ``plan.json`` (its identity),
``config.yaml`` (its resolved configuration), ``run.log``, ``saved/`` (the files of every run) and,
once it is finished, ``result.json``. A run is a separate process, so that its peak memory, its
threads and a crash are its own. A launcher starts the processes, here or on other machines.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Callable

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.launch import Launcher, OneAfterAnother, Stop
from recbole_bbqrec.experiment.store.progress import Progress
from recbole_bbqrec.experiment.store.run_key import (
    INPUT_FILES,
    RunKey,
    check_features,
    run_key,
    training_hash,
)
from recbole_bbqrec.experiment.store.splits import planned_split_hash
from recbole_bbqrec.reading import read_json_object, reading
from recbole_bbqrec.run_files.names import CONFIG, LOG, PLAN, RESULT
from recbole_bbqrec.run_files.per_user import PerUser


@dataclass(frozen=True)
class Run:
    """A run to make.

    Attributes:
        model, dataset: their names.
        overrides: options that win over ``config_files``.
        config_files: YAML files of options.
        seed: None for the configuration's own.
        test: False leaves the test split alone, for hyper-parameter search.
        label: distinguishes runs of one model in messages; not part of the key.
    """

    model: str
    dataset: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    config_files: tuple[str | Path, ...] = ()
    seed: int | None = None
    test: bool = True
    label: str = ""


@dataclass(frozen=True)
class Planned:
    """A run with its resolved configuration and its directory in the store.

    ``training`` is the hash of :func:`training_hash`; empty for a run without a test.
    """

    run: Run
    config: BBQRecConfig
    split_hash: str
    key: RunKey
    directory: Path
    training: str = ""

    @property
    def name(self) -> str:
        label = f" ({self.run.label})" if self.run.label else ""
        return f"{self.run.model} {self.run.dataset}{label} seed {self.config['seed']}"

    def plan(self) -> dict[str, Any]:
        """Return the content of ``plan.json``."""
        return {
            "model": self.run.model,
            "dataset": self.run.dataset,
            "seed": self.config["seed"],
            "test": self.run.test,
            "split_hash": self.split_hash,
            "training": self.training,
            "key": {"config": self.key.config, "data": self.key.data, "code": self.key.code},
        }


@dataclass(frozen=True)
class Outcome:
    """A finished run or a failed one.

    Attributes:
        planned: the run.
        directory: its directory; with ``any_version`` perhaps that of another version.
        result: the content of ``result.json``, or None if the run failed.
        error: the reason of the failure in one line, or None.
    """

    planned: Planned
    directory: Path
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def run(self) -> Run:
        return self.planned.run

    @property
    def model(self) -> str:
        return self.run.model

    @property
    def dataset(self) -> str:
        return self.run.dataset

    @property
    def seed(self) -> int:
        return int(self.planned.config["seed"])

    @property
    def split_hash(self) -> str:
        return self.planned.split_hash

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def metrics(self) -> dict[str, float] | None:
        """The test metrics, or None if the run failed."""
        return None if self.result is None else self.result["test_result"]

    @property
    def users(self) -> PerUser | None:
        """The test metrics of every user, or None if the run has none."""
        return self.per_user if "per_user" in (self.result or {}).get("files", {}) else None

    @property
    def protocol(self) -> str:
        """The protocol of the split; empty in runs of earlier versions."""
        return str((self.result or {}).get("split", {}).get("protocol", ""))

    @property
    def by_target(self) -> dict[str, Any]:
        """The test metrics by kinds of targets; empty if the run has none."""
        return (self.result or {}).get("by_target", {})

    @property
    def log(self) -> Path:
        return self.directory / LOG

    def file(self, name: str) -> Path:
        """Return a file of the run by its name in ``result["files"]``, such as ``semantic_ids``.

        Raises:
            UserError: the run has no such file, or it has been removed.
        """
        relative = (self.result or {}).get("files", {}).get(name)
        path = self.directory / relative if relative else None
        if path is None or not path.exists():
            raise UserError(
                f"The run in {self.directory} has no file `{name}`"
                f"{f' at {path}' if path else ''}. Remove the directory to run it again."
            )
        return path

    @cached_property
    def per_user(self) -> PerUser:
        """The test metrics of every user; raises a UserError if the run has none."""
        return PerUser.load(self.file("per_user"))


class RunStore:
    """Finds finished runs and makes missing ones.

    Args:
        root: the store's directory; made when the first run starts.
        any_version: also accept a run of the same configuration and data by another version of
            the code.
        launcher: starts the processes of runs; by default one after another on this machine.
        echo: called with each line of progress.
    """

    def __init__(
        self,
        root: str | Path = "runs",
        *,
        any_version: bool = False,
        launcher: Launcher | None = None,
        echo: Callable[[str], None] = print,
    ) -> None:
        self.root = Path(root).absolute()
        self.any_version = any_version
        self.launcher = launcher or OneAfterAnother()
        self.echo = echo

    def plan(self, run: Run) -> Planned:
        """Resolve a run's configuration and its directory.

        Raises:
            UserError: the model, the data set, an option or a file is missing or invalid.
        """
        config = self._config(run)
        split = planned_split_hash(config, self.root / ".splits")
        check_features(config)
        key = run_key(config, split, test=run.test)
        directory = self.root / run.dataset / run.model / f"{config['seed']}-{key.key}"
        training = training_hash(config) if run.test else ""
        return Planned(run, config, split, key, directory, training)

    def find(self, run: Run | Planned) -> Outcome | None:
        """Return the finished run, or None.

        Raises:
            UserError: as :meth:`plan`, or the stored result is damaged.
        """
        planned = self.plan(run) if isinstance(run, Run) else run
        for directory in [planned.directory, *self._other_versions(planned)]:
            if (directory / RESULT).is_file():
                return Outcome(planned, directory, _read_result(directory / RESULT))
        return None

    def trained(self, planned: Planned) -> Path | None:
        """Return the directory of a finished run of the same training, measured otherwise.

        Its weights are evaluated anew where the run itself is missing.
        """
        found = []
        for path in planned.directory.parent.glob(f"{planned.config['seed']}-*/{PLAN}"):
            with contextlib.suppress(UserError, KeyError, TypeError):  # another run's, damaged
                plan = _read_json(path)
                same = planned.training and plan["training"] == planned.training
                key = RunKey(**plan["key"])
                code = self.any_version or key.code == planned.key.code
                if same and key.data == planned.key.data and code:
                    found.append(path.parent / RESULT)
        found = [path for path in found if path.is_file()]
        return max(found, key=lambda path: path.stat().st_mtime).parent if found else None

    def ensure(
        self, runs: Sequence[Run | Planned], progress: Progress | None = None
    ) -> list[Outcome]:
        """Make the missing runs and return the outcome of every run, in order.

        All are planned first, so that an invalid one is refused before the first starts. A failed
        run is an outcome, and the next call tries it again. ``progress`` is for runs that come in
        several calls.

        Raises:
            UserError: as :meth:`plan`.
            KeyboardInterrupt: interrupted; the same call continues where this one stopped.
        """
        planned = [self.plan(run) if isinstance(run, Run) else run for run in runs]
        outcomes: dict[Path, Outcome] = {}
        missing: dict[Path, Planned] = {}
        for run in planned:
            outcome = self.find(run)
            if outcome is None:
                missing[run.directory] = run
            else:
                outcomes[run.directory] = outcome
        progress = progress or Progress(self.echo, len(missing), self.launcher.slots)
        for known in outcomes.values():
            progress.add_known(known.model, known.dataset, known.result)
        for ended in self.as_completed(list(missing.values()), progress):
            outcomes[ended.planned.directory] = ended
        return [outcomes[run.directory] for run in planned]

    def as_completed(
        self,
        runs: Iterable[Planned],
        progress: Progress,
        stop: Stop = lambda directory: False,
    ) -> Iterator[Outcome]:
        """Make unfinished runs, each in another directory, and yield each outcome at its end.

        A run is drawn from ``runs`` only when its process can start, so that later runs may depend
        on earlier outcomes. ``stop`` is asked about running ones; those that it ends have failed.
        """
        known = runs if isinstance(runs, Sequence) else []
        pending = {run.directory: run for run in known}
        kinds: dict[Path, str] = {}  # for the estimates of time

        def started() -> Iterator[Path]:
            for run in runs:
                directory, source = run.directory, self.trained(run)
                pending[directory], plan, what = run, run.plan(), ""
                kinds[directory] = run.run.model
                if source is not None:
                    plan["trained_in"] = os.path.relpath(source, directory)
                    what = f", the weights of {source.name} are evaluated anew"
                    kinds[directory] = f"{run.run.model}, evaluated"
                write_text(directory / PLAN, json.dumps(plan, indent=2) + "\n")
                write_text(directory / CONFIG, run.config.to_text())
                progress.start(run.name + what, directory / LOG)
                yield directory

        for directory, seconds, error in self.launcher.launch(started(), stop):
            run = pending.pop(directory)
            result = _read_result(directory / RESULT) if error is None else None
            left = [(each.run.model, each.run.dataset) for each in pending.values()]
            progress.finish(run.name, kinds[directory], run.run.dataset, seconds, error, left)
            yield Outcome(run, directory, result, error)

    # helpers --------------------------------------------------------------------------------

    def _config(self, run: Run) -> BBQRecConfig:
        overrides = dict(run.overrides)
        if run.seed is not None:
            overrides["seed"] = run.seed
        config = BBQRecConfig(run.model, run.dataset, run.config_files, overrides)
        if config["resume"] is not None:
            raise UserError(
                "Option `resume` is not for runs of the store: an interrupted one continues by "
                "itself. Remove the option."
            )
        # The run works in its own directory, so the files it reads need absolute paths.
        for key in ("data_path", *INPUT_FILES):
            if config.resolved.get(key) is not None:
                config.resolved[key] = os.path.abspath(config.resolved[key])
        return config

    def _other_versions(self, planned: Planned) -> list[Path]:
        if not self.any_version:
            return []
        same = []
        for path in planned.directory.parent.glob(f"{planned.config['seed']}-*/{PLAN}"):
            plan = _read_json(path)
            with reading(path, "the plan of a run", f"Remove {path.parent}."):
                key = RunKey(**plan["key"])
            if key.same_but_code(planned.key):
                same.append(path)
        newest = sorted(same, key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.parent for path in newest]


def _read_result(path: Path) -> dict[str, Any]:
    result = _read_json(path)
    if not isinstance(result.get("test_result"), dict):
        raise UserError(f"{path} has no `test_result`. Remove {path.parent} to run it again.")
    return result


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, "a file of a run", f"Remove {path.parent} to run it again.")
