"""Table 5: items that share their semantic ID, by its length. Phase one only."""

from __future__ import annotations

from typing import Any

from recbole_bbqrec.experiment.comparison.tables import Row, Table
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.study import Report, Results, Setting, Study

LENGTHS = (2, 3, 4)
#: Quantize all levels: a disambiguation token has no part in the comparison.
_QUANTIZED = {"disambiguation": "reassign"}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "RQ-VAE": ("TIGER", _QUANTIZED),
    "LETTER": ("LETTER", _QUANTIZED),
    "BBQRec": ("BBQRec", {}),
}


class Table5(Study):
    """Collisions of the quantizer's codes, before re-assignment."""

    name = "table5"
    title = "Table 5, items that share their semantic ID"
    datasets = ("Toys", "Clothing")
    settings = tuple(
        Setting(
            f"{label}, L={length}", model,
            {**options, "codebook_levels": length, "tokenize_only": True}, label, length,
        )
        for length in LENGTHS
        for label, (model, options) in _MODELS.items()
    )  # fmt: skip

    def report(self, results: Results) -> Report:
        rows = []
        for dataset in results.request.datasets:
            for setting in results.request.settings:
                result = results.of(dataset, setting)
                cell = result.cell(_collisions)
                rows.append(
                    beside.csv_row(
                        dataset, setting, "collisions", cell, _paper(dataset, setting), result
                    )
                )
        return Report([self._table(results, name) for name in results.request.datasets], rows)

    def _table(self, results: Results, dataset: str) -> Table:
        groups = list(dict.fromkeys(s.name for s in results.request.settings))
        at = {(s.value, s.name): s for s in results.request.settings}
        rows: list[Row] = []
        for length in LENGTHS:
            settings = [at[length, group] for group in groups]
            entries = [
                _COUNT.entry(result.cell(_collisions), _paper(dataset, setting), result.status)
                for setting in settings
                for result in [results.of(dataset, setting)]
            ]
            rows.append([f"L={length}", *entries])
        notes = beside.notes(results, self.name, dataset)
        notes.insert(0, "Counted before re-assignment. RQ-VAE is TIGER's, all L levels quantized.")
        return Table(f"{self.title}: {dataset}", ["length", *groups], rows, (), notes)


def _collisions(result: dict[str, Any]) -> float:
    return float(result["tokenizer"]["collisions_before"])


def _paper(dataset: str, setting: Setting) -> float | None:
    return paper.figures()["table5"].get(dataset, {}).get(setting.name, {}).get(setting.value)


_COUNT = beside.Style("{:,.0f}".format, beside.absolute)
