"""Options that say how events are kept: RecBole's rows in memory, or arrays on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

from recbole_bbqrec.data.loaded_columns import header_columns
from recbole_bbqrec.data.protocol.settings import own_protocol, split_settings
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import RunConfig
from recbole_bbqrec.settings import OptionalText, Settings, option

#: Bytes of an interaction file from which `data_layout: auto` maps it; about 10 million events.
LARGE = 1 << 28

#: Options of RecBole's that change the events while it reads them, or read more of them.
_OF_RECBOLES_READING = (
    "rm_dup_inter", "val_interval", "threshold", "normalize_field", "normalize_all",
    "discretization", "preload_weight", "additional_feat_suffix", "unused_col", "unload_col",
    "alias_of_user_id", "alias_of_item_id", "numerical_features",
)  # fmt: skip


@dataclass(frozen=True)
class LayoutSettings(Settings):
    """Options of every run that say where its events are kept; overall.yaml."""

    data_layout: Literal["auto", "recbole", "mapped"] = option(
        "auto", "auto: mapped for an .inter file from 256 MiB on, where it can be."
    )
    mapped_folder: OptionalText = option(
        None, "Folder of the mapped events; empty: `.mapped` beside the data sets."
    )


def is_mapped(config: RunConfig) -> bool:
    """Return True if a run reads its events from memory-mapped arrays.

    Raises:
        UserError: `data_layout` is mapped where that cannot be; it says why and what to do.
    """
    wanted = config["data_layout"] or "recbole"  # RecBole's own Config has no such option
    path = inter_file(config)
    if wanted == "recbole" or not path.is_file():  # RecBole reports an absent file
        return False
    if wanted == "auto" and path.stat().st_size < LARGE:
        return False
    reason = next(_reasons(config, path), None)
    if wanted == "mapped" and reason is not None:
        raise UserError(
            f"Option `data_layout` is mapped, but {reason}. Use --data_layout=recbole, which keeps "
            "the events in memory."
        )
    if reason is not None:
        getLogger().info(f"`data_layout`: {path} is large and stays in memory, because {reason}")
    return reason is None


def inter_file(config: RunConfig) -> Path:
    """Return the path of the interactions."""
    return Path(config["data_path"]) / f"{config['dataset']}.inter"


def mapped_columns(config: RunConfig) -> dict[str, str]:
    """Return the words ``name:type`` of a file's header by name."""
    return header_columns(inter_file(config), config["field_separator"], config["encoding"]) or {}


def _reasons(config: RunConfig, path: Path) -> Iterator[str]:
    """Yield the reasons why the events of a run cannot be mapped."""
    spec: Any = getattr(config, "spec", None)
    if spec is None or not (spec.two_phase or spec.trains_on_histories):
        yield (
            f"{config['model']} trains on one row for each prefix of a user, not on whole histories"
        )
    settings = split_settings(config)
    asked = config["eval_args"]
    if config["benchmark_filename"]:
        yield f"`benchmark_filename` is {config['benchmark_filename']}, a split made elsewhere"
    if own_protocol(settings) is not None:
        yield f"`protocol` is {settings.protocol}; of mapped events only leave_one_out is made"
    if (asked["split"], asked["order"]) != ({"LS": "valid_and_test"}, "TO"):
        yield f"`eval_args` is {asked}; of mapped events only leave_one_out is made"
    if {"full"} != set(asked["mode"].values()):
        yield f"`eval_args` has mode {asked['mode']}; with mapped events all items are ranked"
    for key in _OF_RECBOLES_READING:
        if config[key]:
            yield f"`{key}` is {config[key]!r}, which RecBole does while it reads"
    yield from _columns_in_the_way(config, path)


def _columns_in_the_way(config: RunConfig, path: Path) -> Iterator[str]:
    fields = [config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
    loaded, header = config["load_col"], mapped_columns(config)
    types = dict(zip(fields, ("token", "token", "float")))
    for field, kind in types.items():
        if header.get(field) != f"{field}:{kind}":
            yield f"{path} has no column {field}:{kind}"
    if len(config["field_separator"]) != 1:
        yield f"`field_separator` is {config['field_separator']!r}, not one character"
    if (config["encoding"] or "utf-8").lower().replace("-", "") != "utf8":
        yield f"`encoding` is {config['encoding']}, not utf-8"
    columns = loaded.get("inter") if isinstance(loaded, dict) else None
    if columns is None or set(columns) - {*fields, config["REAL_TIME_FIELD"]}:
        yield f"`load_col` is {loaded}; mapped events have {', '.join(fields)} alone"
    elif set(loaded) != {"inter"}:
        yield f"`load_col` is {loaded}, which loads other files than the interactions"
