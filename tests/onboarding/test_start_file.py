"""``init``: a file of options that changes nothing until a line of it is changed."""

from __future__ import annotations

import re

import pytest
import yaml

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig, default_options, options_read
from recbole_bbqrec.onboarding.start_file import start_file


def uncommented(text):
    return re.sub(r"^#(?=\w+:)", "", text, flags=re.M)


@pytest.mark.parametrize("model", ["BBQRec", "TIGER", "ESASRec", "SASRec"])
def test_its_lines_are_the_defaults(model, tmp_path, tiny):
    """The file as written is empty; with every # removed, it changes no option."""
    text = start_file(model, "Mini")
    assert yaml.safe_load(text) is None
    path = tmp_path / "all.yaml"
    path.write_text(uncommented(text), encoding="utf-8")
    assert len(yaml.safe_load(path.read_text(encoding="utf-8"))) > 20
    there = {"data_path": tiny["data_path"]}
    plain = BBQRecConfig(model, "Mini", (), there)
    filled = BBQRecConfig(model, "Mini", (path,), there)
    assert filled.resolved == plain.resolved and not filled.warnings


def test_every_checked_option_of_the_yaml_files_has_a_line_with_help():
    text = start_file("BBQRec", "Mini")
    for name in options_read("BBQRec", "Mini") & set(default_options("BBQRec", "Mini")):
        assert re.search(rf"^#{name}:", text, re.M), name
    assert "#num_beams: 50" in text and "Beam width" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_file_is_never_replaced(rundir, capsys):
    assert main(["init", "mine", "--dataset=Mini"]) == 0
    assert "--config_files=mine.yaml" in capsys.readouterr().out
    (rundir / "mine.yaml").write_text("epochs: 3\n", encoding="utf-8")
    assert main(["init", "mine.yaml"]) == 2
    assert "mine.yaml exists" in capsys.readouterr().err
    assert (rundir / "mine.yaml").read_text(encoding="utf-8") == "epochs: 3\n"


def test_an_unknown_model_is_named(rundir, capsys):
    assert main(["init", "mine", "--model=BBQReck"]) == 2
    assert "BBQRec" in capsys.readouterr().err
    assert not list(rundir.iterdir())
