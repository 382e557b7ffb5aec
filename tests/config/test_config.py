"""Options: parsed as data, checked against their ranges, unknown ones refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import yaml
from recbole.data.dataset import Dataset
from recbole.evaluator.register import metric_types
from recbole.utils import EvaluatorType

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.options import MODEL_OPTIONS, RECBOLE_OPTIONS, RUN_OPTIONS
from recbole_bbqrec.config.values import parse_overrides, parse_value, read_yaml
from recbole_bbqrec.config.yaml_files import neglected_properties, properties_directory
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.names import has_cutoff, metric_names
from recbole_bbqrec.run_files.output_folder import check_output_folder


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("True", True),
        ("false", False),
        ("None", None),
        ("~", None),
        ("[5, 10]", [5, 10]),
        ("[text, image]", ["text", "image"]),
        ("['text']", ["text"]),
        ("{'max_norm': 1.0}", {"max_norm": 1.0}),
        ("[5,inf)", "[5,inf)"),
        ("auto", "auto"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values_are_data(text, value):
    assert parse_value(text) == value


def test_overrides_need_the_equals_sign_and_one_value():
    assert parse_overrides(["--epochs=3", "--path=a=b"]) == {"epochs": 3, "path": "a=b"}
    with pytest.raises(UserError, match="--epochs"):
        parse_overrides(["--epochs"])
    with pytest.raises(UserError, match="given twice"):
        parse_overrides(["--epochs=3", "--epochs=4"])


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("epoch", 3, "Did you mean `epochs`"),
        ("codebook_sise", 3, "Did you mean `codebook_size`"),
        ("epochs", 0, "at least 1"),
        ("train_batch_size", -1, "at least 1"),
        ("MAX_ITEM_LIST_LENGTH", 0, "at least 1"),
        ("learning_rate", 0, "above 0"),
        ("seed", -1, "of at least 0 and at most 4294967295"),
        ("seed", 2**32, "of at least 0 and at most 4294967295"),
        ("user_inter_num_interval", 5, r"\[5,inf\)"),
        ("user_inter_num_interval", "5-core", r"\[5,inf\)"),
        ("user_inter_num_interval", "[2,inf", r"\[5,inf\)"),
        ("item_inter_num_interval", "[2;inf)", r"\[5,inf\)"),
        ("item_inter_num_interval", "[5,2]", r"\[5,inf\)"),
        ("item_inter_num_interval", "[nan,5]", r"\[5,inf\)"),
        ("item_inter_num_interval", "[5,many)", r"\[5,inf\)"),
        ("item_inter_num_interval", "[5,6,7)", r"\[5,inf\)"),
        ("item_inter_num_interval", "[5,6);", r"\[5,inf\)"),
        ("temperature", 0, "above 0"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("history_encoding", "both", "bidirectional, causal"),
        ("generation_loss", "ce", "code, item"),
        ("generation_loss", "code", "--item_head=False"),
        ("num_beams", 9, "at least 10"),
        ("hidden_size", 33, "multiple of `n_heads`"),
        ("metrics", ["Gain"], "Gain"),
        ("metrics", [], "at least one name"),
        ("metrics", ["MRR"], "one of MRR@5, MRR@10; add --valid_metric=MRR@10"),
        ("topk", [], "an integer of at least 1, or a list"),
        ("topk", [3, 20], "NDCG@3, NDCG@20; add --valid_metric=NDCG@20"),
        ("valid_metric", "Recall@7", "one of Recall@5, Recall@10, NDCG@5, NDCG@10"),
        ("valid_metric", "Recall", "add --valid_metric=Recall@10"),
        ("valid_metric", None, "a text"),
        ("eval_args", "full", r"a table \(a dict\)"),
        ("save_dataset", True, "pickle"),
        ("dataset_save_path", "saved/Mini.pth", "pickle"),
        ("train_neg_sample_args", {"distribution": "uniform", "sample_num": 1}, "negatives"),
        ("commitment_weight", {"id": 0.1}, "signals"),
        ("tokenizer_warmup_epochs", 1000, "less than `tokenizer_epochs`"),
        ("benchmark_filename", ["train", "valid", "test"], "benchmark_filename"),
        ("tokenizer_path", "no/such/file", "which is no file"),
    ],
)
def test_bad_options_are_named(tiny, option, value, says):
    with pytest.raises(UserError, match=says) as error:
        BBQRecConfig("BBQRec", "Mini", overrides={**tiny, option: value})
    assert option in str(error.value)


@pytest.mark.parametrize(
    ("text", "intervals"),
    [
        ("[5,inf)", [("[", 5.0, float("inf"), ")")]),
        ("( 0, 3 ] ; [8,8]", [("(", 0.0, 3.0, "]"), ("[", 8.0, 8.0, "]")]),
        ("[2,10]", [("[", 2.0, 10.0, "]")]),  # read as a list
        ("None", None),
    ],
)
def test_intervals_that_recbole_reads_are_taken(text, intervals):
    """RecBole warns of one that it cannot read, and goes on without the filter."""
    given = {"user_inter_num_interval": parse_value(text), "seed": 2**32 - 1}
    value = BBQRecConfig("SASRec", "Mini", overrides=given)["user_inter_num_interval"]
    dataset = Dataset.__new__(Dataset)
    assert dataset._parse_intervals_str(value) == intervals


def test_a_file_that_only_the_installed_package_has_is_named(rundir):
    file = "properties/model/BBQRec.paper.yaml"
    with pytest.raises(UserError, match="package's own is .*BBQRec.paper.yaml"):
        BBQRecConfig("BBQRec", "Mini", [file])


def test_masked_history_needs_all_candidates(tiny):
    sampled = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni100"}
    with pytest.raises(UserError, match="mask_history.*uni100"):
        BBQRecConfig("SASRec", "Mini", overrides={"mask_history": True, "eval_args": sampled})


@pytest.mark.parametrize(
    ("model", "option", "value", "says"),
    [
        ("BBQRec", "n_layers", 9, "Did you mean `encoder_layers`"),
        ("BBQRec", "hidden_dropout_prob", 0.9, "init NAME --model=BBQRec`"),
        ("BBQRec", "embedding_size", 7, "not read by model BBQRec"),
        ("BBQRec", "enable_amp", True, "Did you mean `precision`"),
        ("BBQRec", "reg_weight", 0.1, "Unknown option"),
        ("BBQRec", "SASRec.n_layers", 2, "for a model SASRec, and this run is of BBQRec"),
        ("BBQRec", "gnn_layers", 2, "Unknown option"),
        ("LETTER", "n_negatives", 3, "init NAME --model=LETTER`"),
        ("ESASRec", "enable_amp", True, "Did you mean `precision`"),
        ("SASRec", "precision", "bfloat16", "Did you mean `enable_amp`"),
        ("SASRec", "encoder_layers", 5, "Did you mean `n_layers`"),
        ("SASRec", "dropout", 0.9, "init NAME --model=SASRec`"),
        ("Caser", "hidden_size", 32, "init NAME --model=Caser`"),
    ],
)
def test_options_that_the_model_does_not_read_are_refused(model, option, value, says):
    with pytest.raises(UserError, match=says) as error:
        BBQRecConfig(model, "Mini", overrides={option: value})
    assert option in str(error.value) and model in str(error.value)


@pytest.mark.parametrize(
    ("model", "read", "left_out"),
    [
        ("BBQRec", {"precision": "float32", "enable_amp": False, "loss_type": None},
         {"n_layers": "encoder_layers", "hidden_dropout_prob": "dropout", "loss_type": None,
          "enable_amp": "precision", "embedding_size": "hidden_size"}),
        ("SASRec", {"n_layers": 3, "enable_amp": True, "precision": None},
         {"precision": "enable_amp", "embedding_size": None}),
        ("TransRec", {"embedding_size": 6, "loss_type": None}, {"loss_type": None}),
    ],
)  # fmt: skip
def test_options_of_other_models_in_a_file_are_left_out_with_one_warning(
    tmp_path, model, read, left_out
):
    path = tmp_path / "for-all.yaml"
    path.write_text(
        "n_layers: 3\nprecision: float32\nenable_amp: True\nloss_type: BPR\nembedding_size: 6\n"
        "hidden_dropout_prob: 0.4\n"
    )
    config = BBQRecConfig(model, "Mini", [path])
    assert {key: config[key] for key in read} == read
    (warning,) = config.warnings
    for key, near in left_out.items():
        assert (f"`{key}` (read here: `{near}`)" if near else f"`{key}`") in warning
        if key != "enable_amp":  # RecBole's own default is stored with every run
            assert key not in config.resolved and key not in config.explicit
        assert f"\x1b[36m{key}\x1b[0m" not in str(config)
    again = BBQRecConfig.from_text(config.to_text())
    assert again.to_text() == config.to_text() and not again.warnings
    with pytest.raises(UserError, match="interest_ratio"):  # given alone, it is a mistake
        BBQRecConfig.from_text(config.to_text(), {"interest_ratio": 0.5})
    path.write_text("epoch: 3\n")
    with pytest.raises(UserError, match="Did you mean `epochs`"):
        BBQRecConfig(model, "Mini", [path])


@pytest.mark.parametrize(
    ("metrics", "topk", "valid_metric", "names"),
    [
        (["Recall", "NDCG"], [3], "ndcg@3", ["Recall@3", "NDCG@3"]),
        ("Hit", [1, 2], "HIT@2", ["Hit@1", "Hit@2"]),
        (["Recall", "GAUC"], [3], "GAUC", ["Recall@3", "GAUC"]),
        (["ItemCoverage", "MRR"], [4], "itemcoverage@4", ["ItemCoverage@4", "MRR@4"]),
        (
            ["AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"],
            [5],
            "GiniIndex@5",
            ["AveragePopularity@5", "ShannonEntropy@5", "GiniIndex@5", "TailPercentage@5"],
        ),
    ],
)
def test_valid_metric_is_one_that_is_measured(metrics, topk, valid_metric, names):
    overrides = {"metrics": metrics, "topk": topk, "valid_metric": valid_metric}
    config = BBQRecConfig("SASRec", "Mini", overrides=overrides)
    assert metric_names(config["metrics"], config["topk"]) == names


def test_valid_metric_is_free_where_nothing_is_validated():
    overrides = {"topk": [3], "eval_step": 0}
    text = BBQRecConfig("SASRec", "Mini", overrides=overrides).to_text()
    again = BBQRecConfig.from_text(text, {"eval_step": 1, "topk": [4]})  # to evaluate, not to train
    assert (again["topk"], again["valid_metric"]) == ([4], "NDCG@10")


def test_metrics_without_a_cutoff():
    ranking, value = [], []
    for name, kind in metric_types.items():
        (ranking if kind == EvaluatorType.RANKING else value).append(name)
    assert {name for name in ranking if not has_cutoff(name)} == {"gauc"}
    assert not any(has_cutoff(name) for name in value) and len(value) == 4


@pytest.mark.parametrize(
    ("given", "mode", "split"),
    [
        ({"mode": "uni5"}, {"valid": "uni5", "test": "uni5"}, {"LS": "valid_and_test"}),
        ({"mode": {"valid": "uni5"}}, {"valid": "uni5", "test": "uni5"}, {"LS": "valid_and_test"}),
        ({"split": {"LS": "test_only"}}, {"valid": "full", "test": "full"}, {"LS": "test_only"}),
        (None, {"valid": "full", "test": "full"}, {"LS": "valid_and_test"}),
    ],
)
def test_eval_args_that_are_not_given_keep_their_defaults(given, mode, split):
    """RecBole's own answer to `mode` alone is an order that sequential models cannot have."""
    config = BBQRecConfig("SASRec", "Mini", overrides={"eval_args": given})
    found = {"mode": mode, "split": split, "order": "TO", "group_by": "user"}
    assert config["eval_args"] == found
    again = BBQRecConfig.from_text(config.to_text())
    assert again["eval_args"] == found
    again = BBQRecConfig.from_text(config.to_text(), {"eval_args": {"mode": "pop3"}})
    assert again["eval_args"] == {**found, "mode": {"valid": "pop3", "test": "pop3"}}


def test_checkpoint_dir_must_be_a_folder_that_can_be_written(rundir, capsys, monkeypatch):
    Path("file").write_text("")
    for given in ("file", f"{rundir}/file/below"):
        assert main(["run", "--model=SASRec", "--dataset=Mini", f"--checkpoint_dir={given}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: Option `checkpoint_dir` is {given}; ")
        assert "file is a file" in error and error.count("\n") == 1
    BBQRecConfig("SASRec", "Mini", overrides={"checkpoint_dir": "new/below"})
    text = BBQRecConfig("SASRec", "Mini").to_text()
    BBQRecConfig.from_text(text, {"checkpoint_dir": "file"})  # to evaluate: nothing goes there
    monkeypatch.setattr("os.access", lambda place, mode: str(place) != str(rundir))
    with pytest.raises(UserError, match="`checkpoint_dir` is new; .* is closed to writing"):
        BBQRecConfig("SASRec", "Mini", overrides={"checkpoint_dir": "new"})
    assert [path.name for path in rundir.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="needs to act as another user than root")
def test_a_folder_below_a_closed_one_cannot_be_written(rundir):
    closed = rundir / "closed"
    closed.mkdir(mode=0o000)
    was_root = os.geteuid() == 0
    if was_root:  # who may read everything
        rundir.chmod(0o755)
        os.setresuid(65534, 65534, 0)
    try:
        with pytest.raises(UserError, match="closed to writing"):
            check_output_folder("checkpoint_dir", closed / "in" / "runs")
    finally:
        if was_root:
            os.setresuid(0, 0, 0)
        closed.chmod(0o755)


def test_masked_history_needs_a_wider_beam(tiny):
    with pytest.raises(UserError, match="history items that are masked"):
        BBQRecConfig("BBQRec", "Mini", overrides={**tiny, "mask_history": True, "num_beams": 29})
    BBQRecConfig("BBQRec", "Mini", overrides={**tiny, "mask_history": True, "num_beams": 30})


@pytest.mark.parametrize(("name", "says"), [("bbqrec", "`BBQRec`"), ("BPR", "sequential")])
def test_unknown_model(name, says):
    with pytest.raises(UserError, match=says):
        BBQRecConfig(name, "Mini")


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", "\x00"])
def test_config_file_must_be_a_table(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="bad.yaml"):
        read_yaml(path)
    with pytest.raises(UserError, match="absent.yaml"):
        read_yaml(tmp_path / "absent.yaml")


def test_config_file_cannot_run_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("epochs: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="evil.yaml"):
        read_yaml(path)


def test_precedence(tmp_path, tiny):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 7\nlearning_rate: 2e-3\n")
    config = BBQRecConfig("BBQRec", "Mini", [path], {"learning_rate": 0.1})
    assert config["epochs"] == 7
    assert config["learning_rate"] == 0.1
    assert config["MAX_ITEM_LIST_LENGTH"] == 20  # RecBole's sample.yaml would say 50
    beauty = BBQRecConfig("BBQRec", "Beauty")
    assert beauty["modalities"] == ["text"]  # the data set's YAML narrows the model's


@pytest.mark.parametrize("model", ["BBQRec", "SASRec", "BERT4Rec"])
def test_text_round_trip(model, tiny):
    overrides = tiny if model == "BBQRec" else {"seed": 5}
    config = BBQRecConfig(model, "Mini", overrides=overrides)
    again = BBQRecConfig.from_text(config.to_text())
    assert again.to_text() == config.to_text()
    assert again.final_config_dict == config.final_config_dict


def test_every_key_of_our_yaml_files_is_known():
    """A key that no schema knows would be a key that nothing reads."""
    known = {*MODEL_OPTIONS, *RUN_OPTIONS, *RECBOLE_OPTIONS}
    theirs = set(BBQRecConfig("SASRec", "unknown-data").final_config_dict)
    theirs |= set(BBQRecConfig("BERT4Rec", "unknown-data").final_config_dict)
    theirs |= set(BBQRecConfig("GRU4Rec", "unknown-data").final_config_dict)
    theirs |= {"contrast", "tau", "sim", "use_filter"}  # read by FEARec, see test_options_read
    for path in properties_directory().rglob("*.yaml"):
        keys = set(yaml.safe_load(path.read_text()) or {})
        assert keys <= known | theirs, f"{path.name}: {keys - known - theirs}"


def test_properties_of_the_working_directory_are_said_not_to_be_read(rundir, caplog):
    config = BBQRecConfig("SASRec", "Mini")
    Path("properties/model").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        config.log_to(logging.getLogger())
        assert "are not read" not in caplog.text  # nothing in it
        Path("properties/model/SASRec.yaml").write_text("n_layers: 3\n")
        config.log_to(logging.getLogger())
    assert "--config_files=properties/model/SASRec.yaml" in caplog.text
    assert BBQRecConfig("SASRec", "Mini")["n_layers"] == config["n_layers"]


def test_the_properties_of_a_checkout_are_read(monkeypatch):
    monkeypatch.chdir(properties_directory().parent)
    assert neglected_properties() is None


def test_a_run_from_before_the_option_counts_positions_from_the_first_item():
    """Whatever its encoding; a new run with the same options counts them as the encoding asks."""
    given = {"history_encoding": "bidirectional"}
    config = BBQRecConfig("TIGER", "Mini", overrides=given)
    assert config["history_positions"] == "auto"
    lines = config.to_text().splitlines(keepends=True)
    old = "".join(line for line in lines if not line.startswith("history_positions"))
    assert BBQRecConfig.from_text(old)["history_positions"] == "first"
    assert BBQRecConfig.from_text(config.to_text())["history_positions"] == "auto"
