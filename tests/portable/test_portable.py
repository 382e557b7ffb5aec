"""Exported models give the live one's lists: without RecBole, in plain operations, by programs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from recbole_bbqrec import load_run
from recbole_bbqrec.cli.main import main
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.portable.model import PortableModel
from recbole_bbqrec.portable.onnx_files import read_onnx
from recbole_bbqrec.portable.programs import read_programs, write_programs
from recbole_bbqrec.portable.reference import recommend
from tests.support.contract import small_bbqrec
from tests.support.generator import small_catalogue, small_generator

#: Of the networks: the default, the paper's parts, and TIGER's.
NETWORKS = {
    "default": {"generation_loss": "item", "item_head": True, "item_embedding": True,
                "repeat_logit": True, "history_tokens": "item"},
    "paper": {"history_encoding": "bidirectional", "decoder_start": "token"},
    "codes": {"similarity": False, "tie_codes": True, "decoder_start": "token"},
    "levels": {"generation_loss": "item", "norm_positions": True, "token_fusion": "sum"},
}  # fmt: skip

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {"recbole", "pandas", "scipy", "sklearn", "duckdb", "yaml"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import importlib.util
real, importlib.util.find_spec = importlib.util.find_spec, lambda name, *rest: (
    None if name == "recbole" else real(name, *rest))
from recbole_bbqrec.portable.model import PortableModel

model = PortableModel.load(sys.argv[1])
import json
print(json.dumps(model.recommend(json.loads(sys.argv[2]), k=7)))
try:
    from recbole_bbqrec import run
except ImportError as error:
    assert "pip install" in str(error)
else:
    raise SystemExit("RecBole was found")
"""


def portable(**given) -> PortableModel:
    torch.manual_seed(0)
    catalogue = small_catalogue(feature_dim=4 if given.get("item_head") else 0)
    vectors, features = catalogue.vectors.float(), catalogue.features
    sized = {"n_items": catalogue.n_items, "feature_dim": 4 if given.get("item_head") else 0}
    generator = small_generator(catalogue, **sized, **given).float()
    from recbole_bbqrec.generator.items.catalogue import Catalogue

    catalogue = Catalogue.build(
        catalogue.codes, vectors, 3, features=None if features is None else features.float()
    )
    tokens = ("[PAD]", *(f"i{n}" for n in range(1, catalogue.n_items)))
    return PortableModel(generator, catalogue, tokens, 12, False, "float32")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_ranks_as_the_fast_code(name):
    model = portable(**NETWORKS[name])
    for history in (["i3"], ["i5", "i9", "i5", "i20"], [f"i{n}" for n in range(1, 9)]):
        (fast,), slow = model.recommend([history], k=12), recommend(model, history, 12)
        assert [score for _, score in fast] == pytest.approx([s for _, s in slow], abs=1e-4)
        # Items of one semantic ID tie, by ascending id in both.
        assert [item for item, _ in fast] == [item for item, _ in slow]


def test_folders_are_texts_or_paths(tmp_path):
    model = portable(**NETWORKS["default"])
    model.save(str(tmp_path), model.catalogue.vectors, {})
    loaded = PortableModel.load(str(tmp_path))
    assert loaded.tokens == model.tokens
    with pytest.raises(FileNotFoundError):
        read_programs(loaded, str(tmp_path))
    assert write_programs(portable(**NETWORKS["paper"]), str(tmp_path)) is not None


def test_one_token_in_place_of_a_history_is_named():
    model = portable(**NETWORKS["default"])
    with pytest.raises(UserError, match=r"histories\[1\] is 'i3'; expected a list of raw tokens"):
        model.recommend([["i3"], "i3"])
    with pytest.raises(UserError, match=r"histories is 'i3'"):
        model.recommend("i3")
    with pytest.raises(UserError, match=r"history is 'i3'"):
        recommend(model, "i3", 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run and its exported folder."""
    root = tmp_path_factory.mktemp("export")
    directory = small_bbqrec(root)
    onnx = ["--onnx"] if importlib.util.find_spec("onnxscript") else []
    assert main(["export", str(directory), f"--output={root / 'out'}", *onnx]) == 0
    return directory, root / "out"


def histories(loaded) -> list[list[str]]:
    rng = np.random.default_rng(0)
    tokens = loaded.dataset.item_tokens[1:]
    return [[str(t) for t in rng.permutation(tokens)[: 1 + n % 6]] for n in range(12)]


@pytest.mark.slow
def test_a_process_without_recbole_gives_the_lists_of_the_live_model(exported):
    directory, folder = exported
    loaded = load_run(directory)
    given = histories(loaded)
    table = loaded.recommend(histories=given, k=7)
    command = [sys.executable, "-c", BLOCKED, str(folder), json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lists = json.loads(done.stdout)
    assert [item for row in lists for item, _ in row] == table["item"].tolist()
    scores = [score for row in lists for _, score in row]
    assert scores == pytest.approx(table["score"].tolist(), abs=1e-5)


@pytest.mark.slow
def test_the_programs_give_the_same_lists(exported):
    _, folder = exported
    model = PortableModel.load(folder)
    encode, decode = read_programs(model, str(folder))  # as docs/export.md writes it
    for history in ([model.tokens[5]], list(model.tokens[7:12]), list(model.tokens[1:31])):
        (fast,) = model.recommend([history], k=10)
        slow = recommend(model, history, 10, encode, decode)
        assert [item for item, _ in fast] == [item for item, _ in slow]
        assert [s for _, s in fast] == pytest.approx([s for _, s in slow], abs=1e-3)


@pytest.mark.slow
def test_the_onnx_files_give_the_same_lists(exported):
    pytest.importorskip("onnxscript", reason="writes ONNX files")
    pytest.importorskip("onnxruntime", reason="computes them")
    _, folder = exported
    model = PortableModel.load(folder)
    onnx = read_onnx(model, str(folder))
    for history in ([model.tokens[5]], list(model.tokens[7:12]), list(model.tokens[1:31])):
        (fast,) = model.recommend([history], k=10)
        slow = recommend(model, history, 10, *onnx)
        assert [item for item, _ in fast] == [item for item, _ in slow]
        assert [s for _, s in fast] == pytest.approx([s for _, s in slow], abs=1e-3)


def test_without_the_library_of_onnx_the_command_that_installs_it_is_named(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "nowhere", f"--output={tmp_path / 'out'}", "--onnx"]) == 2
    assert "[onnx]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_card_says_what_the_run_found_and_damage_is_named(exported, tmp_path):
    directory, folder = exported
    result = json.loads((directory / "result.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"| recall@10 | {result['test_result']['recall@10']:.4f} |" in card
    assert result["split_hash"] in card and "## Limits" in card
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no exported model that can be read"):
        PortableModel.load(tmp_path)
    with pytest.raises(UserError, match="Unknown item"):
        PortableModel.load(folder).recommend([["nothing"]])


def test_a_folder_that_exists_is_refused(tmp_path, capsys):
    assert main(["export", "nowhere", f"--output={tmp_path}"]) == 2
    assert "exists" in capsys.readouterr().err
