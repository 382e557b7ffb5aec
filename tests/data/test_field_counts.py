"""Rows with another number of fields than the header: the line and the column are named."""

from __future__ import annotations

import pytest

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data import field_counts
from recbole_bbqrec.data.field_counts import check_field_counts
from recbole_bbqrec.data.loaders import create_dataset
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import get_dataset_class

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROWS = [f"u{u}\ti{i}\t{10 * u + i}" for u in range(6) for i in range(5)]


def config(tmp_path, rows, header=HEADER, **options):
    folder = tmp_path / "Own"
    folder.mkdir(exist_ok=True)
    (folder / "Own.inter").write_text("\n".join([header, *rows]))
    return BBQRecConfig("SASRec", "Own", overrides={"data_path": str(tmp_path), **options})


@pytest.mark.parametrize("place", [0, 7, 29])
@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("u2\ti\t3\t23", "`item_id`"),
        ("u\t2\ti3\t23", "`user_id`"),
        ("new\tuser\tnew\titem\t5", "line"),  # two: no guess
        ("u2\ti3\t2\t3", "`timestamp`"),
        ("u2\ti3", "expected 3"),
    ],
)
def test_the_line_and_the_column_are_named(tmp_path, place, row, column):
    rows = [*ROWS[:place], row, *ROWS[place:]]
    settings = config(tmp_path, rows)
    with pytest.raises(UserError, match=rf"Own\.inter, line {place + 2} has .*{column}") as error:
        create_dataset(settings, get_dataset_class("SASRec"))
    if column.startswith("`"):
        assert str(error.value).count(" within the field of `") == 1
        assert " or " not in str(error.value)


@pytest.mark.parametrize("block", [16, 37, 1 << 20])
def test_sound_files_pass(tmp_path, monkeypatch, block):
    """Blank lines, line ends of Windows and quoted fields are sound."""
    monkeypatch.setattr(field_counts, "_BLOCK", block)
    check_field_counts(config(tmp_path, [*ROWS, "", '"a\tb"\ti1\t5', ""]))
    check_field_counts(config(tmp_path, [f"{row}\r" for row in ROWS]))
    wrong = [*ROWS[:20], "u1\ti1", *ROWS[20:]]
    with pytest.raises(UserError, match="line 22 has 2 fields"):
        check_field_counts(config(tmp_path, wrong))


def test_another_separator(tmp_path):
    rows = [row.replace("\t", ",") for row in ROWS]
    options = {"header": HEADER.replace("\t", ","), "field_separator": ","}
    check_field_counts(config(tmp_path, rows, **options))
    with pytest.raises(UserError, match="line 2 has 4 fields.*a ',' within the field of `item_id`"):
        check_field_counts(config(tmp_path, ["u2,i,3,23", *rows], **options))
