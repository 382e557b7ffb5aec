"""Models that read columns of the items: refused in time without them, trained with them."""

from __future__ import annotations

import shutil

import pytest

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import parse_value
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
from tests.support.contract import WITH_FIELDS
from tests.support.runs import ROOT

COLUMNS = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
WITH_LIST = ["FDSA", "GRU4RecF", "SASRecF"]
READERS = [(model, "selected_features") for model in WITH_LIST]


@pytest.fixture
def own_data(tmp_path):
    """A copy of Mini, its items with two columns, as the parent folder and the file."""
    shutil.copytree(ROOT / "dataset" / "Mini", tmp_path / "data" / "Mini")
    file = tmp_path / "data" / "Mini" / "Mini.item"
    events = (file.parent / "Mini.inter").read_text().splitlines()[1:]
    items = sorted({line.split("\t")[1] for line in events})
    rows = [f"{item}\tc{number % 7} c{number % 3}\tb" for number, item in enumerate(items)]
    file.write_text("\n".join(["item_id:token\tclass:token_seq\tbrand:token", *rows]) + "\n")
    return tmp_path / "data", file


@pytest.mark.parametrize(("model", "option"), READERS)
def test_columns_that_are_not_loaded_are_refused(model, option, rundir, capsys):
    """The defaults load the interactions alone."""
    arguments = ["run", f"--model={model}", "--dataset=Mini", f"--data_path={ROOT / 'dataset'}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: Option `{option}` is ") and error.count("\n") == 1
    for word in (model, "`class`", "`load_col`", "Mini.item"):
        assert word in error
    advice = parse_value(error.partition('--load_col="')[2].partition('"')[0])
    assert advice == COLUMNS
    assert not any(rundir.iterdir())


@pytest.mark.parametrize(("model", "option"), READERS)
def test_columns_that_the_file_has_not_are_refused(model, option, own_data):
    root, file = own_data
    given = {"data_path": str(root), "load_col": {**COLUMNS, "item": "*"}}
    BBQRecConfig(model, "Mini", overrides=given)
    BBQRecConfig(model, "Mini", overrides={**given, "load_col": None})
    with pytest.raises(UserError, match="column `brnd`.*not in .*Mini.item .item_id, class, brand"):
        BBQRecConfig(model, "Mini", overrides={**given, option: ["class", "brnd"]})
    with pytest.raises(UserError, match="column `class`.*does not load"):
        unload = {"unload_col": {"item": ["class"]}, "load_col": None}
        BBQRecConfig(model, "Mini", overrides={**given, **unload})
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        BBQRecConfig(model, "Mini", overrides=given)
    shutil.rmtree(file.parent)  # that the data set is absent is told elsewhere
    BBQRecConfig(model, "Mini", overrides=given)


def test_a_column_of_numbers_must_be_one_that_recbole_embeds(own_data):
    root, file = own_data
    file.write_text(file.read_text().replace("brand:token", "price:float"))
    given = {"data_path": str(root), "load_col": {**COLUMNS, "item": "*"}}
    given["selected_features"] = ["class", "price"]
    with pytest.raises(UserError, match=r"`price` of .*--numerical_features=\"\['price'\]\""):
        BBQRecConfig("SASRecF", "Mini", overrides=given)
    BBQRecConfig("SASRecF", "Mini", overrides={**given, "numerical_features": ["price"]})


@pytest.mark.parametrize("value", ["class", [], None, [3]])
def test_selected_features_is_a_list_of_names(value):
    given = {"selected_features": value, "load_col": COLUMNS}
    with pytest.raises(UserError, match="`selected_features` is .*expected a list"):
        BBQRecConfig("SASRecF", "Mini", overrides=given)


@pytest.mark.slow
@pytest.mark.parametrize("model", WITH_LIST)
def test_loaded_columns_train(model, own_data, rundir):
    options = {
        "data_path": str(own_data[0]), "load_col": COLUMNS, "epochs": 1, "train_batch_size": 2048,
        "num_threads": 1, "show_progress": False, "state": "ERROR", **WITH_FIELDS.get(model, {}),
    }  # fmt: skip
    assert run(model, "Mini", overrides=options, saved=False)["test_result"]
