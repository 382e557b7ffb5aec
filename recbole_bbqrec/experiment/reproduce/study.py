"""Experiment of the paper: settings on data sets, and a report of their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.experiment.common_options import taken_by
from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.tables import Table
from recbole_bbqrec.experiment.store.run_key import NOT_IN_KEY
from recbole_bbqrec.experiment.store.store import Outcome

NOT_RUN = "not run: budget"


@dataclass(frozen=True)
class Setting:
    """One model with certain options: a row or cell of a table.

    Attributes:
        label: its name in the report, unique in the experiment.
        model: the registered model.
        options: win over those of the user.
        group: its row, column or sweep, as named in ``--models`` and ``--sweeps``; the label by
            default.
        value: its place within the group, such as the value swept.
        needs: a modality without which the setting would be the same as BBQRec.
        brief: options of a short run that is enough if there is no full run yet; it is not tested.
        defaults: options below those of the user.
    """

    label: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    value: Any = None
    needs: str = ""
    brief: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.group or self.label


@dataclass(frozen=True)
class Result:
    """The runs of a setting on a data set, or the reason for none.

    ``briefly`` is True for short runs (:attr:`Setting.brief`).
    """

    outcomes: tuple[Outcome, ...] = ()
    reason: str = ""
    briefly: bool = False

    def cell(self, value: Callable[[dict[str, Any]], float | None]) -> Cell:
        """Return the cell of the seeds' values; ``value`` reads one from a run's result."""
        values = [value(run.result) for run in self.outcomes if run.result is not None]
        logs = tuple(run.log for run in self.outcomes if run.result is None)
        return Cell(tuple(v for v in values if v is not None), logs)

    def metric(self, name: str) -> Cell:
        """Return the cell of a test metric."""
        return self.cell(lambda result: result["test_result"].get(name))

    @property
    def status(self) -> str:
        """``done``, or why a run is missing, as text for a cell."""
        if self.reason:
            return self.reason
        failed = [run for run in self.outcomes if run.error not in (None, NOT_RUN)]
        if failed:
            return f"failed: see {failed[0].log.parent.name}/{failed[0].log.name}"
        return NOT_RUN if any(run.error for run in self.outcomes) else "done"


@dataclass(frozen=True)
class Request:
    """The user's request.

    ``config_files``, ``common`` and ``own`` (by model) are the options of the runs. ``seeds`` is
    read as in ``compare``.
    """

    datasets: tuple[str, ...]
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...] = (1,)
    config_files: tuple[str, ...] = ()
    common: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self, model: str, dataset: str) -> dict[str, Any]:
        """Return the options of a run: the common ones that its model reads, and its own."""
        return {**taken_by(model, dataset, self.common), **self.own.get(model, {})}

    def described(self) -> str:
        """Write the given options that can change a result."""
        given = [f"{k}={v}" for k, v in self.common.items() if k not in NOT_IN_KEY]
        for model, options in self.own.items():
            given += [f"{model}.{k}={v}" for k, v in options.items() if k not in NOT_IN_KEY]
        return ", ".join([*given, *(Path(name).name for name in self.config_files)])


@dataclass(frozen=True)
class Results:
    """Results of an experiment; ``absent``: data set -> how to make it."""

    request: Request
    absent: Mapping[str, str]
    by_place: Mapping[tuple[str, str], Result]  # (data set, label)

    def of(self, dataset: str, setting: Setting) -> Result:
        """Return the result of a setting on a data set; one without runs if that is absent."""
        return self.by_place.get((dataset, setting.label), Result(reason="no data"))

    def finished(self, dataset: str) -> list[Outcome]:
        """Return every finished run on a data set."""
        results = [r for (name, _), r in self.by_place.items() if name == dataset]
        return [run for result in results for run in result.outcomes if run.finished]

    def averaged(self) -> str:
        """Describe the values of a chart: of one seed, or means of several."""
        count = max(len(result.outcomes) for result in self.by_place.values())
        return "one seed" if count == 1 else f"mean and standard deviation of {count} seeds"

    @property
    def failed(self) -> bool:
        runs = [run for result in self.by_place.values() for run in result.outcomes]
        return any(run.error not in (None, NOT_RUN) for run in runs)


@dataclass(frozen=True)
class Report:
    """Output of an experiment: tables, rows for CSV, and charts by file name."""

    tables: Sequence[Table]
    rows: Sequence[dict[str, Any]]
    charts: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


class Study(ABC):
    """One table or figure of the paper.

    Attributes:
        name: its name on the command line.
        title: its title in the report.
        datasets: the paper's.
        settings: the paper's, in its order.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    settings: tuple[Setting, ...] = ()

    def select(self, models: Sequence[str], sweeps: Sequence[str]) -> tuple[Setting, ...]:
        """Return the settings of ``models``, named as in the paper or here; all if empty.

        Raises:
            UserError: the experiment has no such model, or no sweeps.
        """
        if sweeps:
            raise UserError(f"Option `--sweeps` is for figure3; {self.name} has no sweeps.")
        return self._chosen(models, "--models", lambda s: {s.name, s.model})

    @abstractmethod
    def report(self, results: Results) -> Report:
        """Lay out tables and charts; cells without a value show the reason."""

    def _chosen(
        self, chosen: Sequence[str], option: str, names: Callable[[Setting], set[str]]
    ) -> tuple[Setting, ...]:
        known = list(dict.fromkeys(setting.name for setting in self.settings))
        for name in chosen:
            if any(name in names(setting) for setting in self.settings):
                continue
            hint = did_you_mean(name, known)
            has = f"has {', '.join(known)}" if known else "trains no model"
            raise UserError(f"Option `{option}` names {name}; {self.name} {has}.{hint}")
        return tuple(s for s in self.settings if not chosen or names(s) & set(chosen))
