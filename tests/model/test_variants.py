"""The eight variants of BBQRec: what each lacks, and what none of them loses."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from scipy import sparse

from recbole_bbqrec.cli import models as models_cli
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.values import read_yaml
from recbole_bbqrec.config.yaml_files import overlay_files, properties_directory
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import property_bases
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.quick_start import build_model, load_data_and_model, prepare, run
from recbole_bbqrec.run_files.epochs import read_epochs
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.registry import get_trainer_class
from tests.support.runs import TINY

VARIANTS = ("NoMIM", "NoRec", "NoU", "S", "E", "NoID", "NoText", "NoImage")
ONE_EPOCH = {
    "epochs": 1, "tokenizer_epochs": 2, "codebook_size": 16, "hidden_size": 16, "num_beams": 10,
    "mim_inner_steps": 1, "tokenizer_batch_size": 256, "tokenizer_valid_users": 50,
    "train_batch_size": 1024, "similarity_buckets": 10,
}  # fmt: skip


def built(name, tiny, **changes):
    """A model on Mini, untrained, and its tokenizer."""
    config = BBQRecConfig(name, "Mini", overrides={**tiny, **changes})
    prepared = prepare(config)
    model = build_model(config, prepared.train_data)
    dataset = prepared.train_data._dataset
    trained = torch.ones(model.n_items, dtype=torch.bool)
    return config, model, model.build_tokenizer(config, dataset, trained)


def parameters(module):
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """BBQRec after a very short run: its result, with absolute paths."""
    directory = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        result = run("BBQRec", "Mini", overrides={**TINY, **ONE_EPOCH})
    result["files"] = {name: str(directory / path) for name, path in result["files"].items()}
    return result


def lacks(*words):
    return lambda name: any(word in name for word in words)


#: Variant -> which of BBQRec's tokenizer parameters and generator parameters it must not have.
MISSING = {
    "NoMIM": (lacks("estimators", ".specific."), lacks()),
    "NoRec": (lacks("sequence_encoder", "id_embedding"), lacks("items.weight")),
    "NoU": (lacks(), lacks()),
    "S": (lacks(), lacks(".gate.")),
    "E": (lacks(), lacks()),
    "NoID": (lacks("id_embedding"), lacks("items.weight")),
    "NoText": (lacks("text"), lacks()),
    "NoImage": (lacks("image"), lacks()),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_lacks_exactly_what_it_must(variant, rundir, tiny):
    _, model, tokenizer = built("BBQRec", tiny)
    _, other, other_tokenizer = built(f"BBQRec{variant}", tiny)
    no_tokenizer, no_generator = MISSING[variant]
    for mine, theirs, missing in (
        (parameters(other_tokenizer), parameters(tokenizer), no_tokenizer),
        (parameters(other.generator), parameters(model.generator), no_generator),
    ):
        assert set(mine) == {name for name in theirs if not missing(name)}
    dropped = [name for name in parameters(tokenizer) if no_tokenizer(name)]
    dropped += [name for name in parameters(model.generator) if no_generator(name)]
    assert bool(dropped) == (variant not in ("NoU", "E")), "the expectation itself must bite"


@pytest.mark.slow
def test_signals_and_codebooks(rundir, tiny):
    signals = {
        "NoRec": ("text", "image"), "NoID": ("text", "image"), "NoText": ("id", "image"),
        "NoImage": ("id", "text"),
    }  # fmt: skip
    for variant in VARIANTS:
        _, model, tokenizer = built(f"BBQRec{variant}", tiny)
        expected = signals.get(variant, ("id", "text", "image"))
        assert tokenizer.signals == expected
        assert model.codes.shape[2] == len(expected)
        assert model.vectors.shape[1] == len(expected) * tiny["codebook_dim"]
        assert len(tokenizer.quantizer.codebooks) == (3 if variant == "NoU" else 1)
        assert tokenizer.has_sequence_encoder == (variant != "NoRec")


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_phase_one_has_the_losses_of_its_variant(variant, contract_runs):
    lines = read_epochs(Path(contract_runs[f"BBQRec{variant}"].result["files"]["epochs"]))
    terms = next(line["terms"] for line in lines if line["phase"] == "tokenize")
    assert ("contrastive" in terms) == (variant != "NoRec")
    assert any(key.startswith("mim/") for key in terms) == (variant != "NoMIM")


def reloads_to(result):
    """The saved model, loaded anew, tests to the metrics of the run."""
    config, model, _, _, _, test_data = load_data_and_model(result["files"]["model"])
    trainer = get_trainer_class(config["model"])(config, model)
    again = trainer.evaluate(test_data, load_best_model=False)
    assert dict(again) == result["test_result"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["S", "E"])
def test_shares_phase_one_with_bbqrec(variant, full, rundir, tiny):
    path = full["files"]["semantic_ids"]
    settings = {**tiny, **ONE_EPOCH, "tokenizer_path": path}
    result = run(f"BBQRec{variant}", "Mini", overrides=settings)
    assert result["seconds"]["tokenize"] == 0
    reloads_to(result)
    tables = [torch.load(r["files"]["model"], weights_only=True) for r in (result, full)]
    assert torch.equal(tables[0]["state_dict"]["codes"], tables[1]["state_dict"]["codes"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["NoMIM", "NoU", "NoRec"])
def test_refuses_semantic_ids_of_another_phase_one(variant, full, rundir, tiny):
    """Same shape or not: with BBQRec's IDs the run would be no ablation."""
    settings = {**tiny, **ONE_EPOCH, "tokenizer_path": full["files"]["semantic_ids"]}
    with pytest.raises(UserError, match=f"is defined by that of BBQRec{variant}"):
        run(f"BBQRec{variant}", "Mini", overrides=settings)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["NoText", "NoImage", "NoID"])
def test_refuses_semantic_ids_of_other_signals(variant, full, rundir, tiny):
    settings = {**tiny, **ONE_EPOCH, "tokenizer_path": full["files"]["semantic_ids"]}
    with pytest.raises(UserError, match=r"has signals \['id', 'text', 'image'\]"):
        run(f"BBQRec{variant}", "Mini", overrides=settings)


@pytest.mark.parametrize("sets", [1, 3])
def test_e_starts_from_the_codebooks_and_trains_them(sets, rundir, tiny):
    config, model, _ = built("BBQRecE", tiny)
    n, levels, size, dim = model.n_items, 3, tiny["codebook_size"], tiny["codebook_dim"]
    codebooks = torch.randn(sets, levels, size, dim)
    codes = torch.randint(size, (n, levels, 3))
    model.set_semantic_ids(codes, torch.randn(n, 3 * dim), codebooks)
    table = model.generator.encoder.tokens.codes  # [M, L, N, D]
    for signal in range(3):
        assert torch.equal(table[signal], codebooks[signal % sets])
    before = table.detach().clone()
    items = torch.tensor([[1, 2, 3]])
    model.generator.loss(model.catalogue, items, torch.tensor([[2, 3, 4]]))[0].backward()
    torch.optim.SGD([table], lr=1.0).step()
    used = codes[items]  # [1, 3, L, M]
    for level in range(levels):
        for signal in range(3):
            rows = used[0, :, level, signal]
            assert not torch.equal(table[signal, level, rows], before[signal, level, rows])


@pytest.mark.parametrize("codebooks", [None, torch.zeros(1, 3, 32, 5)])
def test_e_needs_codebooks_that_fit(codebooks, rundir, tiny):
    _, model, _ = built("BBQRecE", tiny)
    codes = torch.zeros(model.n_items, 3, 3, dtype=torch.int64)
    with pytest.raises(UserError, match="codebooks"):
        model.set_semantic_ids(codes, torch.zeros(model.n_items, 48), codebooks)


@pytest.mark.slow
def test_e_keeps_its_trained_table_when_resumed(full, rundir, tiny):
    settings = {**tiny, **ONE_EPOCH, "tokenizer_path": full["files"]["semantic_ids"], "epochs": 2}
    whole = run("BBQRecE", "Mini", overrides=settings)
    state = torch.load(whole["files"]["model"], weights_only=True)["state_dict"]
    books = SemanticIds.load(full["files"]["semantic_ids"]).codebooks
    assert not torch.equal(state["generator.tokens.codes"][0], books[0])
    again = run(overrides={"resume": str(Path(whole["files"]["resume"]).parent)})
    assert again["test_result"] == whole["test_result"]


@pytest.mark.slow
def test_only_s_ignores_the_vectors(full, rundir, tiny):
    ids = SemanticIds.load(full["files"]["semantic_ids"])
    rankings = {}
    for name in ("BBQRecS", "BBQRec"):
        _, model, _ = built(name, tiny, **ONE_EPOCH, item_head=False)  # a head reads them, too
        model.eval()
        codes = torch.cat([torch.zeros_like(ids.codes[:1]), ids.codes])
        width = ids.vectors.shape[1]
        items = torch.randint(1, model.n_items, (8, 6))
        rankings[name] = []
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            vectors = torch.randn(model.n_items, width, generator=generator)
            model.set_semantic_ids(codes, vectors)
            rankings[name].append(model.recommend(items, torch.full((8,), 6), 10)[1])
    assert torch.equal(*rankings["BBQRecS"])
    assert not torch.equal(*rankings["BBQRec"])


@pytest.mark.slow
def test_a_variant_that_leaves_out_nothing_equals_bbqrec_and_says_so(rundir, tiny, caplog):
    """Data sets without images can still run NoImage, as the paper's figure needs for the rest."""
    overrides = {**tiny, "modalities": ["text"], "epochs": 1, "state": "WARNING"}
    variant = run("BBQRecNoImage", "Mini", overrides=overrides)
    assert "BBQRecNoImage leaves out 'image'" in caplog.text
    assert variant["test_result"] == run("BBQRec", "Mini", overrides=overrides)["test_result"]


def test_a_variant_repeats_no_option_of_bbqrec(tiny):
    root = properties_directory() / "model"
    defaults = {**read_yaml(root / "BBQRec.yaml"), **read_yaml(root / "BBQRec.Mini.yaml")}
    for variant in VARIANTS:
        assert read_yaml(root / f"BBQRec{variant}.yaml") == {}
        config = BBQRecConfig(f"BBQRec{variant}", "Mini", overrides=tiny)
        for key in defaults.keys() - tiny.keys() - {"modalities"}:
            assert config[key] == defaults[key]


def test_files_of_the_base_come_first(tmp_path, monkeypatch):
    for name in ("overall", "model/A", "model/B", "dataset/D", "model/A.D", "model/B.D"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x: 1\n")
    monkeypatch.setattr("recbole_bbqrec.config.yaml_files.properties_directory", lambda: tmp_path)

    def order(*arguments):
        return [str(path.relative_to(tmp_path))[:-5] for path in overlay_files(*arguments)]

    family = ["overall", "model/A", "model/B", "dataset/D", "model/A.D", "model/B.D"]
    assert order("B", "D", ["A"], ["A"]) == family
    assert order("B", "D", ["A"]) == [name for name in family if name != "model/A.D"]
    assert order("B", "D") == ["overall", "model/B", "dataset/D", "model/B.D"]


@pytest.mark.parametrize(
    ("model", "bases", "tuned"),
    [
        ("BBQRec", [], []),
        ("BBQRecS", ["BBQRec"], ["BBQRec"]),
        ("TIGER", ["BBQRec"], []),
        ("LETTER", ["BBQRec", "TIGER"], ["TIGER"]),
        ("SASRec", [], []),
    ],
)
def test_whose_options_a_model_starts_from(model, bases, tuned):
    assert property_bases(model) == (bases, tuned)


def test_models_verb_lists_every_model(capsys):
    assert models_cli.main(argparse.Namespace(ours=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines]
    assert listed[1 : len(MODELS) + 1] == list(MODELS)
    assert "SASRec" in listed and "GRU4Rec" in listed
    rows = {row.name: row for row in models_cli.model_rows(ours_only=True)}
    assert list(rows) == list(MODELS)
    assert rows["BBQRecNoText"].signals == "id image"
    assert rows["TIGER"] == ("TIGER", "generative", "text", "Rajput et al. 2023")
    assert rows["ESASRec"].reference == "Tikhonovich et al. 2025"
    theirs = {row.name: row.reference for row in models_cli.model_rows()[len(MODELS) :]}
    assert theirs["SASRec"] == "Wang-Cheng Kang et al. 2018"
    assert theirs["BERT4Rec"] == "Fei Sun et al. 2019"
    assert theirs["GRU4Rec"] == "Yong Kiam Tan et al. 2016"
    assert rows["BBQRecS"].reference == rows["BBQRec"].reference == "Li et al. 2025"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "width"),
    [
        ("BBQRec", {}, 128),
        ("BBQRec", {"feature_components": 10}, 20),
        ("BBQRec", {"item_features": False}, None),
        ("BBQRecNoText", {}, 64),
        ("BBQRecNoID", {}, 128),
        ("TIGER", {}, None),
    ],
)
def test_phase_two_reads_the_features_of_a_models_signals(name, changes, width, rundir, tiny):
    _, model, _ = built(name, tiny, **changes)
    found = None if model.features is None else model.features.shape[1]
    assert found == width
    assert model.generator.config.feature_dim == (width or 0)
    assert ("features" in model.state_dict()) == (width is not None)


def neighbours_of(name, tiny, after: float, similar: float, **changes):
    weights = {"cooccurrence_weight": after, "feature_similarity_weight": similar}
    return built(name, tiny, **weights, **changes)[1].neighbours


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "after", "similar"),
    [
        ("BBQRec", {}, True, True),
        ("BBQRec", {"item_head": False, "repeat_logit": False}, False, False),
        ("BBQRec", {"item_features": False}, True, False),
        ("BBQRecNoID", {}, False, True),
        ("BBQRecNoText", {}, True, True),
        ("TIGER", {}, False, False),
    ],
)
def test_who_chose_an_item_is_part_of_its_id(name, changes, after, similar, rundir, tiny):
    assert (neighbours_of(name, tiny, 1, 0, **changes) is not None) == after
    assert (neighbours_of(name, tiny, 0, 1, **changes) is not None) == similar
    assert neighbours_of(name, tiny, 0, 0, **changes) is None


def pairs_of(near) -> set[tuple[int, int]]:
    owner = torch.repeat_interleave(torch.arange(len(near.pointer) - 1), near.pointer.diff())
    return set(zip(owner.tolist(), near.items.tolist()))


def test_held_out_items_are_chosen_after_nothing(rundir, tiny):
    near = neighbours_of("BBQRec", tiny, 2.0, 0)
    train = prepare(BBQRecConfig("BBQRec", "Mini", overrides=tiny)).train_data
    histories = Histories.from_training_data(train._dataset)
    pairs = set()
    for begin, end in zip(histories.offsets[:-1].tolist(), histories.offsets[1:].tolist()):
        own = list(dict.fromkeys(histories.items[begin:end].tolist()))
        pairs |= {(one, later) for place, one in enumerate(own) for later in own[place + 1 :]}
    assert pairs_of(near) == pairs


@pytest.mark.slow
def test_neighbours_add_up(rundir, tiny):
    """Values of both kinds, each with its weight."""

    def dense(after: float, similar: float):
        near = neighbours_of("BBQRec", tiny, after, similar)
        size = len(near.pointer) - 1
        parts = near.values.numpy(), near.items.numpy(), near.pointer.numpy()
        return torch.from_numpy(sparse.csr_matrix(parts, shape=(size, size)).toarray())

    expected = 3 * dense(1, 0) + 2 * dense(0, 1)
    torch.testing.assert_close(dense(3, 2), expected)
    assert (dense(1, 0) > 0).sum() > 100 and (dense(0, 1) > 0).sum() > 100
