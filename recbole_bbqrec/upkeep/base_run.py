"""The finished run from which ``add_items`` and ``update`` make another."""

from __future__ import annotations

from pathlib import Path

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.loaded_run import LoadedRun
from recbole_bbqrec.quick_start import load_run
from recbole_bbqrec.run_files.finished_run import FinishedRun


def open_base_run(path: Path, model_kind: type, kind_words: str) -> tuple[FinishedRun, LoadedRun]:
    """Load the run at ``path``, of which another run can be made.

    Args:
        path: as :meth:`~recbole_bbqrec.run_files.finished_run.FinishedRun.at` takes it.
        model_kind: class of the models for which this is possible.
        kind_words: these models, and what to do with others.

    Raises:
        UserError: there is no finished run, it is of another model, or it lacks its data, its
            semantic IDs or columns that new items and users would need.
    """
    finished = FinishedRun.at(path)
    files = finished.files
    if not files.manifest.is_file():
        raise UserError(
            f"The run at {path} keeps no data of its own (--save_data=False, or an earlier "
            "version), of which another run is made. Run again, without that option."
        )
    run = load_run(path)
    if not isinstance(run.model, model_kind):
        raise UserError(f"The run at {path} is of {run.config['model']}; expected {kind_words}.")
    if not files.semantic_ids.is_file():
        raise UserError(
            f"The run at {path} has no {files.semantic_ids.name}: its semantic IDs came from "
            "another run (`tokenizer_path`), or the file was removed. Give a run that trained both "
            "phases."
        )
    columns = run.dataset.item_feat, run.dataset.user_feat  # type: ignore[attr-defined]
    if columns != (None, None):
        raise UserError(
            f"The run at {path} reads columns of items or users (`load_col`), which new ones do "
            "not have. Run without them."
        )
    return finished, run
