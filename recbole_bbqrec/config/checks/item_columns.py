"""Check that the columns of ``<Dataset>.item`` that RecBole's models read are loaded.

RecBole itself ends in a KeyError while it makes the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.config import Config

from recbole_bbqrec.data.loaded_columns import header_columns, is_loaded
from recbole_bbqrec.errors import UserError

OPTION = "selected_features"  # of FDSA, GRU4RecF and SASRecF


def check_item_columns(config: Config) -> None:
    """Refuse item columns that the configured run would not load.

    Raises:
        UserError: `load_col` does not name a column that the model reads, or the data set, if
            present, does not have it; or it holds numbers that RecBole does not embed.
    """
    if OPTION not in config.internal_config_dict:  # the model reads none
        return
    names = value = config[OPTION]
    if not isinstance(names, (list, tuple)) or not names or not all(map(_is_name, names)):
        raise UserError(
            f"Option `{OPTION}` is {value!r}; expected a list of columns, as [class], of the items."
        )
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    columns = _columns(path, config)
    for column in names:
        if not is_loaded(column, "item", config["load_col"], config["unload_col"]):
            reason = "which `load_col` does not load"
        elif columns is not None and column not in columns:
            reason = f"which is not in {path} ({', '.join(columns) or 'there is no such file'})"
        elif columns is not None and _is_plain_number(path, config, column):
            raise UserError(
                f"Option `{OPTION}` is {value!r}; the column `{column}` of {path} holds numbers, "
                f"which {config['model']} embeds only if `numerical_features` lists it: add "
                f"--numerical_features=\"['{column}']\", or leave it out."
            )
        else:
            continue
        raise UserError(
            f"Option `{OPTION}` is {value!r}; {config['model']} reads the column `{column}` of the "
            f"items, {reason}. Expected it in the header of {path}, such as {column}:token, and in "
            f'`load_col`: --load_col="{_load_col(config, names)}"; or give other columns in '
            f"`{OPTION}`."
        )


def _is_plain_number(path: Path, config: Config, column: str) -> bool:
    """Return True for a column of numbers that RecBole does not embed."""
    header = header_columns(path, config["field_separator"], config["encoding"]) or {}
    is_float = header[column].rpartition(":")[2].startswith("float")
    return is_float and column not in (config["numerical_features"] or ())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _columns(path: Path, config: Config) -> list[str] | None:
    """Return the columns of the file; None if unknown, as without the data set."""
    if not any(path.parent.glob(f"{config['dataset']}*.inter")):
        return None
    if not path.is_file():
        return []
    header = header_columns(path, config["field_separator"], config["encoding"])
    return None if header is None else list(header)


def _load_col(config: Config, names: Sequence[str]) -> str:
    """Return a `load_col` with all ``names``, as text for the command line."""
    loaded = dict(config["load_col"]) if isinstance(config["load_col"], Mapping) else {}
    items = loaded.get("item", ())
    have = [config["ITEM_ID_FIELD"]] if isinstance(items, str) or not items else items
    loaded["item"] = list(dict.fromkeys([*have, *names]))
    return str(loaded).replace(" ", "")
