"""Table 1: counts of the prepared data. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset
from recbole_bbqrec.experiment.comparison.paired import Cell
from recbole_bbqrec.experiment.comparison.tables import Entry, Row, Table
from recbole_bbqrec.experiment.reproduce import paper
from recbole_bbqrec.experiment.reproduce.results import beside
from recbole_bbqrec.experiment.reproduce.study import (
    Report,
    Request,
    Result,
    Results,
    Setting,
    Study,
)
from recbole_bbqrec.prepare.table1 import PAPER_TABLE1

COLUMNS = ("users", "items", "interactions", "with image", "with text", "average length")
_READER = Setting("data", "BBQRec")  # its options are used to read the data


class Table1(Study):
    """Counts after the 5-core filter, before histories are cut to their last 20 items."""

    name = "table1"
    title = "Table 1, the data sets"
    datasets = paper.DATASETS

    def report(self, results: Results) -> Report:
        rows: list[Row] = []
        lines, features = [], []
        for dataset in results.request.datasets:
            prepared = dataset not in results.absent
            counts: Sequence[float | None] = [None] * len(COLUMNS)
            if prepared:
                counts, encoders = count(results.request, dataset)
                features.append(f"{dataset}: {encoders}.")
            paper_row = PAPER_TABLE1.get(dataset) or [None] * len(COLUMNS)
            state = Result(reason="" if prepared else "not prepared")
            entries: list[Entry] = []
            for column, ours, printed in zip(COLUMNS, counts, paper_row):
                cell = Cell(() if ours is None else (ours,))
                style = _LENGTH if column == COLUMNS[-1] else _COUNT
                reason = "" if entries else state.reason
                entries.append(style.entry(cell, printed, reason))
                lines.append(beside.csv_row(dataset, _READER, column, cell, printed, state))
            rows.append([dataset, *entries])
        notes = [*_notes(results), *features]
        return Report([Table(self.title, ["data set", *COLUMNS], rows, (), notes)], lines)


def count(request: Request, dataset: str) -> tuple[list[float], str]:
    """Return the row of a prepared data set, in the order of ``COLUMNS``, and its features."""
    options = request.options(_READER.model, dataset)
    config = BBQRecConfig(_READER.model, dataset, request.config_files, options)
    folder = Path(config["data_path"])
    modalities = ("text", "image")
    present = [m for m in modalities if (folder / f"{dataset}.{m}.npy").is_file()]
    config["modalities"] = present
    data = create_dataset(config, MultiModalDataset)
    users, items = data.user_num - 1, data.item_num - 1  # without [PAD]
    covered = {name: int(data.item_features(name).present[1:].sum()) for name in present}
    row = [users, items, data.inter_num, covered.get("image", 0), covered.get("text", 0)]
    encoder_of = {
        name: data.item_features(name).metadata.get("encoder", "unknown") for name in present
    }
    encoders = "; ".join(f"{name} by {encoder}" for name, encoder in encoder_of.items())
    return [*row, data.inter_num / users], encoders or "no item features"


def _notes(results: Results) -> list[str]:
    lines = ["Cells: ours / the paper's (ours minus the paper's)."]
    lines += results.absent.values()
    for dataset in results.request.datasets:
        lines += paper.notes("table1", dataset)
    return lines


def _length_difference(ours: float, printed: float) -> str:
    return f"{ours - printed:+.2f}" if round(ours, 2) != printed else ""


_COUNT = beside.Style("{:,.0f}".format, beside.absolute)
_LENGTH = beside.Style("{:.2f}".format, _length_difference)
