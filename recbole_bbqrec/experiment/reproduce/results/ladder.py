"""The ladder: from the letter of the paper to BBQRec as it is, one addition a rung."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import properties_directory
from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.report import DECIMALS, metric_name
from recbole_bbqrec.experiment.comparison.tables import Entry, Table, marks
from recbole_bbqrec.experiment.evaluate.evaluation import evaluate
from recbole_bbqrec.experiment.evaluate.jobs import find_jobs
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.study import Report, Result, Results, Setting, Study
from recbole_bbqrec.experiment.store.store import Outcome
from recbole_bbqrec.metrics.groups import LATER
from recbole_bbqrec.model.settings import NeighbourSettings
from recbole_bbqrec.reading import read_json_object
from recbole_bbqrec.run_files.names import MASKED

METRICS = ("recall@10", "ndcg@10")
FIGURES = [
    prefix + metric_name(name) for prefix in ("", "masked ", "later day ") for name in METRICS
]
SECONDS = "training s"
NO_NEIGHBOURS = {"cooccurrence_weight": 0, "feature_similarity_weight": 0}

#: Rungs after the letter, and the options that each of them sets. A rung keeps those before it.
ADDITIONS: dict[str, dict[str, Any]] = {
    "+ causal": {
        "history_encoding": "causal", "history_positions": "auto", "history_tokens": "item",
        "decoder_start": "history",
    },
    "+ item likelihood": {"generation_loss": "item"},
    "+ item embedding": {"item_embedding": True},
    "+ features": {"item_features": True},
    "+ item head": {"item_head": True, "repeat_logit": False, **NO_NEIGHBOURS},
    "+ repeat logit": {"repeat_logit": True},
    "+ neighbours": {
        "cooccurrence_weight": NeighbourSettings.cooccurrence_weight,
        "feature_similarity_weight": NeighbourSettings.feature_similarity_weight,
    },
}  # fmt: skip
LAST = "BBQRec"


def rungs() -> list[Setting]:
    """Return the settings from the letter, ``BBQRec.paper.yaml``, to BBQRec with its defaults.

    What an addition sets is fixed. The letter's training and phase one stay up to the last rung but
    one, and lie below the user's options. The last rung has the defaults of BBQRec for them, too.
    """
    letter = read_yaml(properties_directory() / "model" / "BBQRec.paper.yaml")
    structural = {name for options in ADDITIONS.values() for name in options}
    fixed = {name: value for name, value in letter.items() if name in structural}
    training = {name: value for name, value in letter.items() if name not in structural}
    settings = [Setting("letter", LAST, dict(fixed), defaults=training)]
    for label, options in ADDITIONS.items():
        fixed.update(options)
        group = label[2:].replace(" ", "_")  # a name for --models
        settings.append(Setting(label, LAST, dict(fixed), group, defaults=training))
    return [*settings, Setting(LAST, LAST, group="default")]


class Ladder(Study):
    """Study of the worth of each addition to the paper's letter, under three protocols."""

    name = "ladder"
    title = "From the letter of the paper to BBQRec, one addition a rung"
    datasets = ("Beauty", "Sports")
    settings = tuple(rungs())

    def report(self, results: Results) -> Report:
        places = [(d, s) for d in results.request.datasets for s in results.request.settings]
        figures = {(d, s.label): _figures(results.of(d, s)) for d, s in places}
        tables = [self._table(results, d, figures) for d in results.request.datasets]
        rows = [
            beside.csv_row(dataset, setting, figure, cell, None, results.of(dataset, setting))
            for dataset, setting in places
            for figure, cell in figures[dataset, setting.label].items()
        ]
        return Report(tables, rows)

    def _table(
        self, results: Results, dataset: str, figures: Mapping[tuple[str, str], dict[str, Cell]]
    ) -> Table:
        settings = results.request.settings
        columns = []
        for place, figure in enumerate(FIGURES):
            cells = [figures[dataset, setting.label][figure] for setting in settings]
            marked = marks([cell.mean if cell.complete else None for cell in cells], DECIMALS)
            statuses = [results.of(dataset, s).status if place == 0 else "" for s in settings]
            columns.append([
                beside.METRIC.entry(cell, None, status, mark)
                for cell, status, mark in zip(cells, statuses, marked)
            ])  # fmt: skip
        seconds = [figures[dataset, setting.label][SECONDS].mean for setting in settings]
        columns.append([Entry("-" if mean is None else f"{mean:,.0f}") for mean in seconds])
        rows = [[s.label, *cells] for s, cells in zip(settings, zip(*columns))]
        notes = [
            "A rung keeps the additions before it, and the letter's phase one and training; the "
            "last one has BBQRec's own.",
            "Masked: the ranking leaves the history out. Later day: targets after the day of the "
            "history's last item alone, nothing masked.",
            *beside.notes(results, self.name, dataset),
        ]
        return Table(f"{self.title}: {dataset}", ["rung", *FIGURES, SECONDS], rows, notes=notes)


def masked_metrics(run: Outcome) -> dict[str, Any]:
    """Return the test metrics of a finished run when the history is left out of the ranking.

    The saved weights are evaluated, once: a file in the run's directory keeps the result.
    """
    path = run.directory / MASKED
    if not path.is_file():
        (job,) = find_jobs([run.directory], {"mask_history": True}, "test")
        write_text(path, json.dumps(dict(evaluate(job, "test").metrics)) + "\n")
    return read_json_object(path, "the masked metrics of a run", f"Remove {path}.")


def _figures(result: Result) -> dict[str, Cell]:
    """Return the cells of a rung by column."""
    runs = [run for run in result.outcomes if run.finished]
    logs = result.metric(METRICS[0]).logs
    masked = [masked_metrics(run) for run in runs]
    later = [run.by_target.get(LATER, {}).get("metrics", {}) for run in runs]
    cells = {}
    for prefix, found in (("", [run.metrics or {} for run in runs]), ("masked ", masked),
                          ("later day ", later)):  # fmt: skip
        for name in METRICS:
            values = tuple(each[name] for each in found if name in each)
            cells[prefix + metric_name(name)] = Cell(values, logs)
    cells[SECONDS] = result.cell(lambda each: each["seconds"]["train"])
    return cells
