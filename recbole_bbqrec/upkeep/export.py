"""Export a finished run as a folder that loads without RecBole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import atomic_folder
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.model.base.generative import GenerativeRecommender
from recbole_bbqrec.portable.model import PortableModel
from recbole_bbqrec.portable.onnx_files import require_onnx
from recbole_bbqrec.portable.programs import write_programs
from recbole_bbqrec.quick_start import load_run
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.upkeep.model_card import model_card
from recbole_bbqrec.version import __version__


@dataclass(frozen=True)
class Exported:
    """Report on an exported folder.

    Attributes:
        files: names of the files.
        no_programs: why there are no programs of ``torch.export``; None where there are.
    """

    files: tuple[str, ...]
    no_programs: str | None


def export(path: Path, output: Path, onnx: bool = False) -> Exported:
    """Write the model of the run at ``path`` to the folder ``output``; ``onnx``: as ONNX, too.

    Raises:
        UserError: there is no finished run of a generative model at ``path``, ``output`` exists, or
            a library that ``onnx`` needs is missing.
    """
    if onnx:
        require_onnx()
    if output.exists():
        raise UserError(f"--output {output} exists; it is never replaced. Name another folder.")
    finished = FinishedRun.at(path)
    run = load_run(path)
    model = portable(run, path)
    with atomic_folder(output) as work:
        about = {key: finished.result[key] for key in ("model", "dataset", "split_hash")}
        signals = list(run.model.signals_of(run.config))
        about = {**about, "version": __version__, "signals": signals}
        model.save(work, run.model.vectors, about)
        reason = write_programs(model, work, onnx)
        _write_titles(run, work)
        card = model_card(finished.result, run.config, model, reason)
        (work / "README.md").write_text(card, encoding="utf-8")
    return Exported(tuple(sorted(file.name for file in output.iterdir())), reason)


def portable(run: LoadedRun, path: Path) -> PortableModel:
    """Return the loaded model as a portable one, which shares its tensors.

    Raises:
        UserError: it is not generative.
    """
    model: Any = run.model
    if not isinstance(model, GenerativeRecommender) or type(model.generator) is not Generator:
        raise UserError(
            f"The run at {path} is of {run.config['model']}; only models that generate semantic "
            "IDs can be exported, such as BBQRec and TIGER."
        )
    model = model.cpu()
    return PortableModel(
        model.generator.eval(), model.catalogue, tuple(run.dataset.item_tokens), model.num_beams,
        bool(run.config["mask_history"]), str(run.config["precision"]),
    )  # fmt: skip


def _write_titles(run: LoadedRun, folder: Path) -> None:
    place, name = Path(run.config["data_path"]), run.config["dataset"]
    titles = read_titles(place / f"{name}.titles.tsv")
    if titles:
        lines = (f"{token}\t{titles.get(token, '')}\n" for token in run.dataset.item_tokens[1:])
        (folder / "titles.tsv").write_text("item_id\ttitle\n" + "".join(lines), encoding="utf-8")
