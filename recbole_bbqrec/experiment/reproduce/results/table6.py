"""Table 6: seconds per user at beams 50 and 100, one user at a time; measured on every call."""

from __future__ import annotations

from typing import Any

from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.tables import Row, Table
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.results.latency import TOP, WARM_UP, Timing, measure
from recbole_bbqrec.experiment.reproduce.study import Report, Results, Setting, Study

BEAMS = (50, 100)
#: Full phase one, because the shape of the trie matters; one epoch of phase two, not validated.
_BRIEF = {"epochs": 1, "eval_step": 0}


class Table6(Study):
    """Latency of generative models, with the runs of table 2 if there are any."""

    name = "table6"
    title = "Table 6, seconds a user"
    datasets = ("Beauty",)
    settings = (
        Setting("TIGER", "TIGER", brief=_BRIEF),
        Setting("LETTER", "LETTER", brief=_BRIEF),
        Setting("BBQRec", "BBQRec", brief=_BRIEF),
    )

    def report(self, results: Results) -> Report:
        tables, rows = [], []
        for dataset in results.request.datasets:
            timings = {s.label: _timings(results, dataset, s) for s in results.request.settings}
            tables.append(self._table(results, dataset, timings))
            rows += [
                row
                for setting in results.request.settings
                for row in _rows(results, dataset, setting, timings[setting.label])
            ]
        return Report(tables, rows)

    def _table(self, results: Results, dataset: str, timings: dict[str, list[Timing]]) -> Table:
        settings, rows = results.request.settings, []
        for width in BEAMS:
            row: Row = [
                f"beam {width}",
                *(
                    _SECONDS.entry(
                        _median(timings[s.label], width), _paper(dataset, s, width),
                        results.of(dataset, s).status,
                    )
                    for s in settings
                ),
            ]  # fmt: skip
            rows.append(row)
        notes = beside.notes(results, self.name, dataset)
        measured = [timing for group in timings.values() for timing in group]
        if measured:
            users = measured[0].by_beams[BEAMS[0]].users
            notes.insert(
                0,
                f"Times of this machine, not of the paper's: {measured[0].machine}. Medians over "
                f"{users} test users after {WARM_UP} for warm-up, one at a time, top {TOP}.",
            )
        brief = [s.label for s in settings if results.of(dataset, s).briefly and timings[s.label]]
        if brief:
            notes.append(
                f"{', '.join(brief)}: no finished full run in the store, so one with a single "
                "epoch of phase two was timed. The time depends on sizes and semantic IDs, hardly "
                "on how long the generator was trained."
            )
        return Table(
            f"{self.title}: {dataset}", ["", *(s.label for s in settings)], rows, (), notes
        )


def _timings(results: Results, dataset: str, setting: Setting) -> list[Timing]:
    """Measure each finished run of a setting."""
    runs = [run for run in results.of(dataset, setting).outcomes if run.finished]
    return [
        measure(run.file("model"), run.planned.config.resolved["data_path"], BEAMS) for run in runs
    ]


def _median(timings: list[Timing], width: int) -> Cell:
    return Cell(tuple(timing.by_beams[width].median for timing in timings))


def _paper(dataset: str, setting: Setting, width: int) -> float | None:
    return paper.figures()["table6"].get(dataset, {}).get(setting.label, {}).get(width)


def _rows(
    results: Results, dataset: str, setting: Setting, timings: list[Timing]
) -> list[dict[str, Any]]:
    result, rows = results.of(dataset, setting), []
    for width in BEAMS:
        cell, printed = _median(timings, width), _paper(dataset, setting, width)
        row = beside.csv_row(dataset, setting, f"seconds, beam {width}", cell, printed, result)
        p95 = max((timing.by_beams[width].p95 for timing in timings), default=None)
        machine = timings[0].machine if timings else None
        rows.append({**row, "p95": p95, "briefly": result.briefly, "machine": machine})
    return rows


_SECONDS = beside.Style("{:.4f} s".format)
