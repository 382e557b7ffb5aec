"""Table 1: what the prepared data hold. Nothing is trained."""

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
_READER = Setting("data", "BBQRec")  # the model by whose options the data are read


class Table1(Study):
    """Counts after the 5-core filter, before histories are cut to their last 20 items."""

    name = "table1"
    title = "Table 1, the data sets"
    datasets = paper.DATASETS

    def report(self, results: Results) -> Report:
        rows: list[Row] = []
        lines, features = [], []
        for dataset in results.request.datasets:
            there = dataset not in results.absent
            counts: Sequence[float | None] = [None] * len(COLUMNS)
            if there:
                counts, encoders = count(results.request, dataset)
                features.append(f"{dataset}: {encoders}.")
            theirs = PAPER_TABLE1.get(dataset) or [None] * len(COLUMNS)
            state = Result(reason="" if there else "not prepared")
            entries: list[Entry] = []
            for column, ours, printed in zip(COLUMNS, counts, theirs):
                cell = Cell(() if ours is None else (ours,))
                style = _LENGTH if column == COLUMNS[-1] else _COUNT
                why = "" if entries else state.reason
                entries.append(style.entry(cell, printed, why))
                lines.append(beside.csv_row(dataset, _READER, column, cell, printed, state))
            rows.append([dataset, *entries])
        said = [*_notes(results), *features]
        return Report([Table(self.title, ["data set", *COLUMNS], rows, (), said)], lines)


def count(request: Request, dataset: str) -> tuple[list[float], str]:
    """The row of a prepared data set: counts, then interactions a user; and its features."""
    options = request.options(_READER.model, dataset)
    config = BBQRecConfig(_READER.model, dataset, request.config_files, options)
    folder = Path(config["data_path"])
    modalities = ("text", "image")
    have = [m for m in modalities if (folder / f"{dataset}.{m}.npy").is_file()]
    config["modalities"] = have
    data = create_dataset(config, MultiModalDataset)
    users, items = data.user_num - 1, data.item_num - 1  # without [PAD]
    covered = {name: int(data.item_features(name).present[1:].sum()) for name in have}
    row = [users, items, data.inter_num, covered.get("image", 0), covered.get("text", 0)]
    made = {name: data.item_features(name).metadata.get("encoder", "unknown") for name in have}
    encoders = "; ".join(f"{name} by {how}" for name, how in made.items())
    return [*row, data.inter_num / users], encoders or "no item features"


def _notes(results: Results) -> list[str]:
    said = ["Cells: ours / the paper's (ours less the paper's)."]
    said += results.absent.values()
    for dataset in results.request.datasets:
        said += paper.notes("table1", dataset)
    return said


def _length_difference(ours: float, theirs: float) -> str:
    return f"{ours - theirs:+.2f}" if round(ours, 2) != theirs else ""


_COUNT = beside.Style("{:,.0f}".format, beside.absolute)
_LENGTH = beside.Style("{:.2f}".format, _length_difference)
