"""Make a data set that a run needs, or tell the user how to."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection
from pathlib import Path

from recbole_bbqrec.errors import UserError, did_you_mean
from recbole_bbqrec.prepare import mini
from recbole_bbqrec.prepare.atomic_files import check_folder, check_target, rebuilding
from recbole_bbqrec.prepare.mcauley.files import CATEGORIES, raw_files
from recbole_bbqrec.prepare.written_files import is_changed, write_record
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.reading import reading

ML_100K = "ml-100k"  # RecBole installs its files
logger = logging.getLogger(__name__)


def how_to_make(name: str, directory: Path) -> str:
    """Return the command that makes data set ``name`` in ``directory`` (its own folder)."""
    root = f" --data_path {shlex.quote(str(directory.parent))}"
    root = "" if directory.parent == Path("dataset") else root
    if name in (mini.NAME, ML_100K):
        force = " --force" if directory.is_dir() else ""
        return f"make it with `python -m recbole_bbqrec prepare {name}{root}{force}`"
    if name not in CATEGORIES:
        command = f"python -m recbole_bbqrec prepare {name} --interactions=FILE{root}"
        return f"make it of a table of your own with `{command}`"
    files = raw_files(name)
    return (
        f"make it with `python -m recbole_bbqrec prepare {name}{root}`, which downloads McAuley's "
        f"files (image features: about {files.images.gigabytes} GB, left out by --no_images), or "
        "reads them from a folder with --raw DIR; or add --prepare to this command"
    )


def prepare_missing(name: str, directory: Path, modalities: Collection[str]) -> None:
    """Make data set ``name`` in ``directory`` unless its interactions are there.

    The image features, several GB, are fetched only if ``modalities`` has ``image``.

    Raises:
        UserError: the data set needs files that only the user has, or making it fails.
    """
    if (directory / f"{name}.inter").is_file():
        return
    check_folder(directory)
    if name == mini.NAME:
        make_mini(directory.parent, force=directory.exists())
    elif name == ML_100K:
        from recbole_bbqrec.prepare.recbole_files import make_ml_100k

        make_ml_100k(directory.parent, force=directory.exists())
    elif name in CATEGORIES:
        # Imported here: a run that has its data need not load scikit-learn's text modules.
        from recbole_bbqrec.prepare.mcauley.build import prepare_from_raw

        # A folder without interactions is no data set: replace it.
        report = prepare_from_raw(
            name, directory.parent, images="image" in modalities, force=directory.exists()
        )
        print(report.table())
    else:
        raise UserError(
            f"Option `prepare`: data set `{name}` cannot be downloaded, only {mini.NAME}, "
            f"{ML_100K} and {', '.join(CATEGORIES)} can. To have it, "
            f"{how_to_make(name, directory)}."
        )


def make_mini(output_root: Path, force: bool = False) -> Path:
    """Make the data set Mini in ``output_root``; return its folder.

    Raises:
        UserError: the folder exists and ``force`` is not set, or it cannot be written.
    """
    target = check_target(mini.NAME, output_root, force, (), ("text", "image"))
    with rebuilding(target) as work:
        mini.make_mini(work)
        write_record(work, mini.NAME)
    return target.path


def make_at_once(config: RunConfig) -> None:
    """Make what a run needs and what takes seconds, where it is absent.

    That is the data sets ml-100k and Mini, and text of the columns of ``NAME.item`` that
    `text_columns` names, if the run reads text.

    Raises:
        UserError: it cannot be made of the files that are there.
    """
    directory, name = Path(config["data_path"]), config["dataset"]
    at_once = name == ML_100K or (name == mini.NAME and not directory.exists())
    if at_once and not config["benchmark_filename"]:
        prepare_missing(name, directory, ())
    columns = config["text_columns"]
    if columns and "text" in (config["modalities"] or ()) and directory.is_dir():
        from recbole_bbqrec.prepare.recbole_files import add_item_text

        add_item_text(directory, name, columns, config["field_separator"], config["encoding"])


def check_files(config: RunConfig) -> None:
    """Raise a UserError if the interaction file of the data set is missing or closed.

    One that has changed since ``prepare`` wrote it is named in a warning: a user may edit it.
    """
    directory, name = Path(config["data_path"]), config["dataset"]
    path = directory / f"{name}.inter"
    if path.is_file():
        with reading(path, "the interactions of a data set", "Open it for reading."), open(path):
            if is_changed(path, name):
                logger.warning("%s has changed since `prepare` wrote it: edited or damaged.", path)
            return
    if config["benchmark_filename"]:
        return
    raise missing(name, directory)


def missing(name: str, directory: Path) -> UserError:
    """Return the error for a data set without interactions, with the names that are meant."""
    root = directory.parent
    found = sorted(p.name for p in root.glob("*") if (p / f"{p.name}.inter").is_file())
    have = f"Data sets there: {', '.join(found)}." if found else "There is no data set there."
    return UserError(
        f"Data set `{name}` has no file {directory / (name + '.inter')}. {have}"
        f"{did_you_mean(name, [*found, mini.NAME, ML_100K, *CATEGORIES])} "
        f"Choose one with --dataset, set `data_path`, or {how_to_make(name, directory)}."
    )
