"""RecBole's options are checked at every depth, and so are those of its own models."""

from __future__ import annotations

import pytest

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import run
from tests.support.runs import ROOT


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("eval_args", {"splt": {"LS": "valid_and_test"}}, "Did you mean `split`"),
        ("eval_args", {"split": {"LO": "valid_and_test"}}, "`LO` in option `eval_args.split`"),
        ("eval_args", {"split": {"LS": "valid"}}, "split.LS` is 'valid'; expected"),
        ("eval_args", {"split": {}}, "exactly one of `LS`"),
        ("eval_args", {"split": {"RS": [0.8, 0.1, 0.1], "LS": "test_only"}}, "exactly one"),
        ("eval_args", {"split": "LS"}, "`eval_args.split` is 'LS'; expected a table"),
        ("eval_args", {"split": {"RS": [0.8, -0.1, 0.1]}}, "shares"),
        ("eval_args", {"split": {"RS": 0.8}}, "shares"),
        ("eval_args", {"order": "T0"}, "`eval_args.order` is 'T0'; expected one of TO, RO"),
        ("eval_args", {"group_by": "session"}, "user or none"),
        ("eval_args", {"mode": "fll"}, "full, labeled, uniN"),
        ("eval_args", {"mode": "uni"}, "full, labeled, uniN"),
        ("eval_args", {"mode": {"valid": "uni0"}}, "`eval_args.mode.valid` is 'uni0'"),
        ("eval_args", {"mode": {"vaild": "full"}}, "Did you mean `valid`"),
        ("train_neg_sample_args", {"distribtion": "uniform"}, "Did you mean `distribution`"),
        ("train_neg_sample_args", {"distribution": "unifrm"}, "one of uniform, popularity"),
        ("train_neg_sample_args", {"sample_num": 0}, "`train_neg_sample_args.sample_num` is 0"),
        ("train_neg_sample_args", {"dynamic": True}, "`candidate_num`"),
        ("train_neg_sample_args", "uniform", "a table"),
        ("val_interval", {"rating": ">=3"}, r"`val_interval.rating` is '>=3'; expected intervals"),
        ("val_interval", {"rating": "[3,inf"}, "intervals"),
        ("val_interval", {"rating": "(3,3)"}, "intervals"),
        ("user_inter_num_interval", "[5,5)", "intervals"),
        ("val_interval", "[3,inf)", "a table"),
        ("val_interval", {"rating": []}, "intervals"),
        ("rm_dup_inter", "frist", "one of first, last"),
        ("clip_grad_norm", 5, r"expected nothing, or a table \(a dict\), such as {'max_norm':5}"),
        ("clip_grad_norm", {"max_nrm": 5}, "Did you mean `max_norm`"),
        ("clip_grad_norm", {"max_norm": 0}, "above 0"),
        ("clip_grad_norm", {"norm_type": 2}, "the key `max_norm`"),
        ("learner", "lion", "adam, adamw, sgd"),
        ("learner", None, "adam, adamw, sgd"),
        ("load_col", {"intr": ["user_id"]}, "Did you mean `inter`"),
        ("load_col", {"inter": "user_id"}, "a list of names"),
        ("load_col", ["user_id"], "a table"),
        ("unload_col", {"items": ["x"]}, "Did you mean `item`"),
        ("threshold", {"rating": "4"}, "`threshold.rating` is '4'; expected a number"),
        ("threshold", {"rating": 4, "play": 1}, "exactly one column"),
        ("discretization", {"price": {"metod": "ED"}}, "Did you mean `method`"),
        ("seq_len", {"class": 0}, "at least 1"),
        ("USER_ID_FIELD", 3, "a name"),
        ("field_separator", "", "a text"),
        ("state", "INFOS", "DEBUG, INFO"),
        ("encoding", "utf-88", "an encoding such as utf-8"),
        ("checkpoint_dir", 2024, "a path as text"),
        ("data_path", None, "a path as text"),
        ("metric_decimal_place", "x", "at least 0"),
        ("show_progress", "yes", "True or False"),
        ("use_gpu", 1, "True or False"),
        ("benchmark_filename", "train", "a list of names"),
        ("normalize_field", "price", "a list of names"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["SASRec", "BBQRec"])
def test_bad_keys_and_values_are_named_with_their_place(model, option, value, says):
    with pytest.raises(UserError, match=says) as error:
        BBQRecConfig(model, "Mini", overrides={option: value})
    assert option in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"eval_args": {"split": {"RS": [8, 1, 1]}, "group_by": "None", "mode": {"test": "pop10"}}},
        {"eval_args": {"group_by": None, "mode": "uni100"}},
        {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 2, "alpha": 0.5,
                                   "dynamic": True, "candidate_num": 5}, "loss_type": "BPR"},
        {"train_neg_sample_args": "None"},
        {"val_interval": {"rating": "[3,5]", "class": ["a", "b"], "user_id": [1, 2]}},
        {"val_interval": {"rating": "(0,2];[4,inf)"}, "rm_dup_inter": "first"},
        {"clip_grad_norm": {"max_norm": 5, "norm_type": float("inf")}, "learner": "AdamW"},
        {"load_col": {"inter": "*", "ent": ["ent_id"]}, "additional_feat_suffix": "ent"},
        {"load_col": None, "unload_col": {"item": ["class"]}},
        {"discretization": {"price": {"method": "LD"}}, "numerical_features": ["price"]},
        {"encoding": "latin-1", "state": "error", "topk": 10, "metrics": "NDCG"},
    ],
)  # fmt: skip
def test_what_recbole_takes_is_taken(values):
    config = BBQRecConfig("SASRec", "Mini", overrides=values)
    again = BBQRecConfig.from_text(config.to_text())
    assert again.to_text() == config.to_text()


def test_a_single_cutoff_is_a_list_of_one():
    config = BBQRecConfig("BBQRec", "Mini", overrides={"topk": 10})
    assert config["topk"] == [10] and config.resolved["topk"] == [10]


@pytest.mark.parametrize(
    ("model", "option", "value", "says"),
    [
        ("SASRec", "n_layers", 0, "at least 1"),
        ("SASRec", "hidden_size", 15, "a multiple of `n_heads`, which is 2"),
        ("CORE", "embedding_size", 15, "a multiple of `n_heads`, which is 2"),
        ("SASRec", "hidden_act", "elu", "gelu, relu"),
        ("SASRec", "transform", "crop_itemseq", "does not read; expected nothing"),
        ("SASRec", "tail_ratio", -1, "a number above 0"),
        ("FEARec", "n_layers", 1, "at least 2, for FEARec"),
        ("FEARec", "global_ratio", 3, "above 0 and at most 1"),
        ("FEARec", "spatial_ratio", 3, "at least 0 and at most 1"),
        ("FEARec", "contrast", "both", "us or un or su or us_x or nothing"),
        ("FEARec", "use_filter", True, "False: RecBole 1.2.1 has no weights"),
        ("Caser", "embedding_size", 1, "at least 2, for Caser"),
        ("SASRec", "loss_type", "XX", "BPR, CE"),
        ("CORE", "loss_type", "BPR", "expected CE"),
        ("SASRecCPR", "loss_type", "BPR", "expected CE"),
        ("SINE", "loss_type", "XX", "BPR or CE or NLL"),
        ("SASRec", "hidden_dropout_prob", 1.5, r"\[0, 1\)"),
        ("GRU4Rec", "dropout_prob", "0.1x", r"\[0, 1\)"),
        ("NARM", "dropout_probs", 0.3, "two probabilities"),
        ("NARM", "dropout_probs", [0.3], "two probabilities"),
        ("DIN", "mlp_hidden_size", [], "a list of whole numbers"),
        ("NextItNet", "dilations", [1, -4], "each at least 1"),
        ("SASRec", "gpu_id", "x", "the number of a GPU"),
        ("DIN", "mlp_hidden_size", "256", "a list of whole numbers"),
        ("GRU4RecF", "pooling_mode", "average", "mean, max, sum"),
        ("HGN", "pooling_type", "mean", "max, average"),
        ("BERT4Rec", "mask_ratio", 0, "above 0"),
        ("LightSANs", "k_interests", 0.5, "at least 1"),
        ("SASRecCPR", "reranker_CAN_NUM", "20,100", "falling order"),
        ("RepeatNet", "joint_train", "yes", "True or False"),
        ("Caser", "reg_weight", "x", "a number"),
        ("GCSAN", "weight", 3, "at most 1"),
    ],
)
def test_values_that_recboles_models_cannot_use_are_named(model, option, value, says):
    given = {option: value}
    if model == "GRU4RecF":
        given["load_col"] = {"inter": ["user_id", "item_id", "timestamp"], "item": ["class"]}
    with pytest.raises(UserError, match=says) as error:
        BBQRecConfig(model, "Mini", overrides=given)
    assert f"`{option}` is {value!r}" in str(error.value)


def test_every_model_accepts_its_own_defaults_and_what_they_write_otherwise():
    assert BBQRecConfig("SASRecCPR", "Mini", overrides={"use_proj_bias": True})["use_proj_bias"]
    given = {"reranker_CAN_NUM": "500,100,20", "weight_mode": "static", "dropout_prob": 0}
    assert BBQRecConfig("GRU4RecCPR", "Mini", overrides=given)["weight_mode"] == "static"


def test_an_assertion_of_recboles_model_is_one_error(rundir):
    given = {"data_path": str(ROOT / "dataset"), "short_item_length": 100}
    with pytest.raises(UserError, match="SHAN refuses its options: .*"):
        run("SHAN", "Mini", overrides={**given, "state": "ERROR"})
