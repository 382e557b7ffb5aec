"""Split hash of a data set before any run, so that a comparison can be refused in time."""

from __future__ import annotations

import re
from pathlib import Path

from recbole.utils import init_seed
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments

from recbole_bbqrec.atomic import write_bytes
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import MultiModalDataset
from recbole_bbqrec.data.loaders import create_dataset, split
from recbole_bbqrec.data.protocol.settings import SplitSettings
from recbole_bbqrec.data.protocol.split_hash import split_hash
from recbole_bbqrec.experiment.store.run_key import (
    code_version,
    counted_options,
    data_files_hash,
    digest,
)
from recbole_bbqrec.prepare.on_demand import check_files, make_at_once, prepare_missing
from recbole_bbqrec.settings import names_of

_HASH = re.compile(rb"[0-9a-f]{16}")  # what split_hash returns


def planned_split_hash(config: BBQRecConfig, cache: Path) -> str:
    """Return the hash that a run of ``config`` will report for its split of the data.

    Reading a large data set is slow, so the hash is cached in the folder ``cache`` under a hash of
    the data files and of every option that reading and splitting depend on.

    Raises:
        UserError: the data set is missing or cannot be read.
    """
    if config["prepare"]:
        prepare_missing(config["dataset"], Path(config["data_path"]), config["modalities"] or ())
    make_at_once(config)
    check_files(config)
    counted = counted_options(config.resolved)
    names = {*dataset_arguments, *evaluation_arguments, *names_of([SplitSettings]), "dataset"}
    if not _splits_by_time(config):
        names.add("seed")
    options = {key: value for key, value in counted.items() if key in names}
    cached = cache / digest([options, data_files_hash(config), code_version()])[:24]
    known = cached.read_bytes() if cached.is_file() else b""
    if not _HASH.fullmatch(known):  # absent, emptied or damaged
        known = _split_hash(config).encode()
        write_bytes(cached, known)
    return known.decode()


def _splits_by_time(config: BBQRecConfig) -> bool:
    """Return True if the split is the last events of each user, the same for every seed."""
    arguments = config["eval_args"]
    return arguments.get("order") == "TO" and "LS" in (arguments.get("split") or {})


def _split_hash(config: BBQRecConfig) -> str:
    config = BBQRecConfig.from_text(config.to_text())
    config["modalities"] = []  # the split does not depend on features
    init_seed(config["seed"], config["reproducibility"])
    return split_hash(*split(config, create_dataset(config, MultiModalDataset)))
