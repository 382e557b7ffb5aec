"""Both phases from one call: determinism, reuse of semantic IDs, exact resumption, quality."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.utils import WandbLogger

from recbole_bbqrec.config.resume import run_to_continue
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.epochs import read_epochs, write_epochs
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer import two_phase_trainer as two_phase
from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer
from tests.support.runs import ROOT, TINY, measured

METRICS = {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted tiny run, kept for the tests of this module."""
    curves = []
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(
            WandbLogger, "log_metrics", lambda self, *args, **kw: curves.append((args, kw))
        )
        result = run("BBQRec", "Mini", overrides=dict(TINY))
    result["curves"] = [(keywords["head"], *arguments) for arguments, keywords in curves]
    result["files"] = {name: str(directory / path) for name, path in result["files"].items()}
    return result


def weights(path: str) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same_weights(first: str, second: str) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_result_names_everything(whole):
    assert set(whole["test_result"]) == METRICS
    assert all(0 <= value <= 1 for value in whole["test_result"].values())
    assert set(whole["seconds"]) == {"prepare", "tokenize", "generate", "train", "test"}
    assert set(whole["features"]) == {"text", "image"}
    for name in ("model", "semantic_ids", "tokenizer_network", "config", "result", "resume"):
        assert Path(whole["files"][name]).is_file(), name
    peaks = [whole["peak_memory_mib_by_stage"][s]["process"] for s in ("prepare", "train", "test")]
    assert 0 < peaks[0] <= peaks[1] <= peaks[2] == whole["peak_memory_mib"]["process"]
    stored = json.loads(Path(whole["files"]["result"]).read_text())
    assert stored["test_result"] == whole["test_result"]


def test_epochs_file_holds_every_epoch_once(whole):
    lines = measured(whole["files"]["epochs"])
    assert [(line["phase"], line["epoch"]) for line in lines] == [
        ("tokenize", 0), ("tokenize", 1), ("tokenize", 2), ("generate", 0), ("generate", 1),
    ]  # fmt: skip
    assert {"total", "contrastive", "mim/text", "codebook/id"} <= lines[1]["terms"].keys()
    assert {"utilisation/level1/id", "perplexity/level3/image"} <= lines[1]["terms"].keys()
    assert set(lines[3]["terms"]) == {"loss", "level_1", "level_2", "level_3"}
    assert set(lines[3]["valid"]) == METRICS
    best = max(line["valid"]["ndcg@10"] for line in lines[3:])
    assert best == whole["best_valid_score"]
    assert lines[0]["learning_rate"] > lines[2]["learning_rate"] > 0  # cosine


def test_wandb_gets_every_epoch_of_both_phases(whole):
    curves = [curve for curve in whole["curves"] if curve[0] in ("tokenize", "generate")]
    assert [(head, values["epoch"]) for head, values in curves] == [
        ("tokenize", 0), ("tokenize", 1), ("tokenize", 2), ("generate", 0), ("generate", 1),
    ]  # fmt: skip
    lines = read_epochs(Path(whole["files"]["epochs"]))
    for line, (_, values) in zip(lines, curves):
        assert {**line["terms"], **line["valid"]}.items() <= values.items()


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch": 1}'])
def test_damaged_epochs_file_is_refused(tmp_path, text):
    path = tmp_path / "epochs.jsonl"
    path.write_text(json.dumps({"phase": "train", "epoch": 0}) + "\n" + text + "\n")
    with pytest.raises(UserError, match="epochs.jsonl, line 2"):
        read_epochs(path)


def test_epochs_file_is_plain_json_also_for_infinite_values(tmp_path):
    path = tmp_path / "epochs.jsonl"
    write_epochs([{"phase": "train", "epoch": 0, "terms": {"loss": float("inf")}}], path)
    assert read_epochs(path)[0]["terms"] == {"loss": None}


def test_same_seed_same_bits(whole, rundir, tiny):
    again = run("BBQRec", "Mini", overrides=tiny)
    assert again["test_result"] == whole["test_result"]
    assert same_weights(again["files"]["model"], whole["files"]["model"])
    other = run("BBQRec", "Mini", overrides={**tiny, "seed": 1})
    assert not same_weights(other["files"]["model"], whole["files"]["model"])


def test_semantic_ids_can_be_reused(whole, rundir, tiny):
    reused = run(
        "BBQRec", "Mini", overrides={**tiny, "tokenizer_path": whole["files"]["semantic_ids"]}
    )
    assert reused["seconds"]["tokenize"] == 0
    assert reused["test_result"] == whole["test_result"]
    assert same_weights(reused["files"]["model"], whole["files"]["model"])


def test_phase_one_alone(whole, rundir, tiny):
    alone = run("BBQRec", "Mini", overrides={**tiny, "tokenize_only": True})
    assert alone["test_result"] == {} and set(alone["best_valid_result"]) >= {"recall@10"}
    assert alone["best_valid_score"] is not None and "generate" not in alone["seconds"]
    assert "model" not in alone["files"] and "per_user" not in alone["files"]
    made, expected = (SemanticIds.load(r["files"]["semantic_ids"]) for r in (alone, whole))
    assert torch.equal(made.codes, expected.codes) and alone["tokenizer"] == whole["tokenizer"]
    # TIGER's phase one has no validation signal.
    tiger = run("TIGER", "Mini", overrides={**tiny, "tokenize_only": True, "encoder_hidden": [32]})
    assert tiger["best_valid_score"] is None and tiger["tokenizer"]["collisions_before"] >= 0


def test_split_without_validation(whole, rundir, tiny):
    """RecBole then gives an empty loader; the last epoch counts as the best."""
    test_only = {"eval_args": {"split": {"LS": "test_only"}}}
    result = run("BBQRec", "Mini", overrides={**tiny, **test_only})
    assert result["best_valid_score"] is None and result["best_valid_result"] == {}
    assert set(result["test_result"]) == METRICS and result["split_hash"] != whole["split_hash"]
    lines = measured(result["files"]["epochs"])
    assert not any(set(line.get("valid", {})) & METRICS for line in lines)
    config, model, _, _, valid_data, test_data = load_data_and_model(result["files"]["model"])
    assert not valid_data
    again = TwoPhaseTrainer(config, model).evaluate(test_data, load_best_model=False)
    assert dict(again) == result["test_result"]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("SASRec", {}, ["tokenize_only", "SASRec"]),
        ("BBQRec", {"tokenizer_path": __file__}, ["tokenize_only", "tokenizer_path"]),
    ],
)
def test_phase_one_alone_is_refused_where_there_is_none(rundir, model, options, words):
    options = {"data_path": str(ROOT / "dataset"), "tokenize_only": True, **options}
    with pytest.raises(UserError) as error:
        run(model, "Mini", overrides=options)
    assert all(word in str(error.value) for word in words)


def test_semantic_ids_are_one_to_one(whole):
    ids = SemanticIds.load(whole["files"]["semantic_ids"])
    assert len(torch.unique(ids.codes.flatten(1), dim=0)) == len(ids.codes) == 405
    assert ids.metadata["collisions_after"] == 0
    assert ids.codes_before is not None
    assert ids.metadata["collisions_before"] == 0
    assert torch.equal(ids.codes, ids.codes_before)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"codebook_size": 64}, "codebook_size"),
        ({"modalities": ["text"]}, "modalities"),
        ({"user_inter_num_interval": "[8,inf)"}, "split"),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_foreign_semantic_ids_are_refused(whole, rundir, tiny, changed, word, saved):
    overrides = {**tiny, "tokenizer_path": whole["files"]["semantic_ids"], **changed}
    with pytest.raises(UserError, match=word):
        run("BBQRec", "Mini", overrides=overrides, saved=saved)


def test_semantic_ids_of_other_features_are_refused(whole, rundir, tiny, tmp_path):
    shutil.copytree(Path(tiny["data_path"]) / "Mini", tmp_path / "data" / "Mini")
    matrix = tmp_path / "data" / "Mini" / "Mini.text.npy"
    np.save(matrix, np.load(matrix) + 1)
    matrix.with_name("Mini.features.yaml").unlink()  # whose checksum would tell already
    changed = {
        "tokenizer_path": whole["files"]["semantic_ids"],
        "data_path": str(tmp_path / "data"),
    }
    with pytest.raises(UserError, match="text features"):
        run("BBQRec", "Mini", overrides={**tiny, **changed})


def test_reload_in_a_fresh_process(whole, tiny, tmp_path):
    script = (
        "import sys, json\n"
        "from recbole_bbqrec.quick_start import load_data_and_model\n"
        "from recbole_bbqrec.trainer.two_phase_trainer import TwoPhaseTrainer\n"
        "config, model, _, _, _, test = load_data_and_model(sys.argv[1])\n"
        "trainer = TwoPhaseTrainer(config, model)\n"
        "result = trainer.evaluate(test, load_best_model=False)\n"
        "print(json.dumps({k: float(v) for k, v in result.items()}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, whole["files"]["model"]],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == whole["test_result"]


def killed_run(options: dict, stop_after: int) -> Path:
    """Start a run, kill it after its n-th checkpoint and return its directory.

    Checkpoint 1 is within phase one, 4 at its end, 5 within phase two, 6 after its last epoch.
    """

    class Killed(Exception):
        pass

    original, written = two_phase.save_checkpoint, []

    def dying(state, path):
        original(state, path)
        if path.name == "resume.pth":
            written.append(state["phase"])
            if len(written) == stop_after:
                raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(two_phase, "save_checkpoint", dying)
        run("BBQRec", "Mini", overrides=options)
    assert written[-1] == ("generate" if stop_after > 4 else "tokenize")
    return next(p for p in Path("saved").glob("BBQRec-*") if p.is_dir())


@pytest.mark.parametrize("stop_after", [1, 4, 5, 6])
def test_resumed_equals_uninterrupted(whole, rundir, tiny, stop_after):
    directory = killed_run(tiny, stop_after)
    resume = "auto" if stop_after == 1 else str(directory)
    resumed = run("BBQRec", "Mini", overrides={**tiny, "resume": resume})
    assert len([p for p in Path("saved").glob("BBQRec-*") if p.is_dir()]) == 1
    assert resumed["test_result"] == whole["test_result"]
    assert resumed["best_valid_result"] == whole["best_valid_result"]
    assert same_weights(resumed["files"]["model"], whole["files"]["model"])
    assert same_weights(resumed["files"]["tokenizer_network"], whole["files"]["tokenizer_network"])
    assert measured(resumed["files"]["epochs"]) == measured(whole["files"]["epochs"])


def test_a_sampled_item_head_resumes_with_the_same_bits(rundir, tiny):
    options = {**tiny, "item_head_sampling": "sampled", "item_head_samples": 200}
    undisturbed = run("BBQRec", "Mini", overrides={**options, "checkpoint_dir": "undisturbed"})
    resumed = run("BBQRec", "Mini", overrides={**options, "resume": str(killed_run(options, 5))})
    assert same_weights(resumed["files"]["model"], undisturbed["files"]["model"])
    assert measured(resumed["files"]["epochs"]) == measured(undisturbed["files"]["epochs"])


def test_a_state_of_an_earlier_version_continues(whole, rundir, tiny):
    """The optimizer of version 0.1 had no peak rate for a schedule."""
    directory = killed_run(tiny, stop_after=5)
    state = torch.load(directory / "resume.pth", weights_only=True)
    for group in state["state"]["optimizer"]["param_groups"]:
        assert group.pop("initial_lr") == tiny["learning_rate"]
    torch.save(state, directory / "resume.pth")
    resumed = run("BBQRec", "Mini", overrides={**tiny, "resume": str(directory)})
    assert same_weights(resumed["files"]["model"], whole["files"]["model"])
    assert measured(resumed["files"]["epochs"]) == measured(whole["files"]["epochs"])


def test_phase_two_resumes_where_the_semantic_ids_are_lost(whole, rundir, tiny):
    """The best network of phase one makes them again."""
    directory = killed_run(tiny, stop_after=5)
    (directory / "semantic_ids.safetensors").unlink()
    resumed = run("BBQRec", "Mini", overrides={**tiny, "resume": str(directory)})
    assert resumed["test_result"] == whole["test_result"]
    assert same_weights(resumed["files"]["model"], whole["files"]["model"])


def test_resume_needs_the_same_options(whole, rundir, tiny):
    with pytest.raises(UserError, match="learning_rate"):
        run(overrides={"resume": str(Path(whole["files"]["resume"]).parent), "learning_rate": 0.5})
    with pytest.raises(UserError, match="nowhere"):
        run("BBQRec", "Mini", overrides={**tiny, "resume": "nowhere"})
    place = Path(whole["files"]["resume"])
    run_to_continue(place, None, None, (), {"eval_args": {"mode": "full"}})
    with pytest.raises(UserError, match="eval_args"):
        run_to_continue(place, None, None, (), {"eval_args": {"mode": "uni5"}})


def test_more_items_than_the_beam_returns_is_an_error(whole):
    _, model, _, _, _, _ = load_data_and_model(whole["files"]["model"])
    model.eval()
    history = torch.tensor([[1, 2]])
    assert model.recommend(history, torch.tensor([2]), 20)[0].shape == (1, 20)
    with pytest.raises(UserError, match="k is 21; expected at most 20"):
        model.recommend(history, torch.tensor([2]), 21)


def test_of_a_long_history_the_last_items_count(whole):
    config, model, _, _, _, _ = load_data_and_model(whole["files"]["model"])
    model.eval()
    most = config["MAX_ITEM_LIST_LENGTH"]
    long, short = torch.arange(1, most + 8), torch.tensor([3, 4])
    rows = torch.zeros(2, len(long), dtype=torch.int64)
    rows[0], rows[1, :2] = long, short
    ids, scores = model.recommend(rows, torch.tensor([len(long), 2]), 10)
    for row, history in enumerate((long[-most:], short)):
        alone = model.recommend(history[None], torch.tensor([len(history)]), 10)
        assert torch.equal(ids[row], alone[0][0])
        torch.testing.assert_close(scores[row], alone[1][0], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="length 0"):
        model.recommend(rows, torch.tensor([3, 0]), 10)


def test_collector_route_equals_score_matrix_route(whole):
    """RecBole's own full-sort evaluation of the scattered scores gives the same metrics."""
    from recbole.evaluator import Collector
    from recbole.trainer import Trainer

    config, model, _, _, _, test_data = load_data_and_model(whole["files"]["model"])
    trainer = TwoPhaseTrainer(config, model)
    trainer.eval_collector = Collector(config)
    trainer._full_sort_batch_eval = lambda batch: Trainer._full_sort_batch_eval(trainer, batch)
    matrix = trainer.evaluate(test_data, load_best_model=False)
    assert {k: float(v) for k, v in matrix.items()} == whole["test_result"]


@pytest.mark.parametrize("eval_batch_size", [1000, 37])
def test_metrics_do_not_depend_on_the_batch(whole, eval_batch_size):
    config, model, _, _, _, test_data = load_data_and_model(
        whole["files"]["model"], {"eval_batch_size": eval_batch_size}
    )
    result = TwoPhaseTrainer(config, model).evaluate(test_data, load_best_model=False)
    assert {k: float(v) for k, v in result.items()} == whole["test_result"]


def test_too_few_finite_items_is_an_error(whole):
    config, model, _, _, _, test_data = load_data_and_model(whole["files"]["model"])
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="finite score.*`learning_rate` was 0.003"):
        TwoPhaseTrainer(config, model).evaluate(test_data, load_best_model=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer_learning_rate": 1e30}, ["`tokenizer_learning_rate` is 1e+30", "loss", "nan"]),
        # One step an epoch: it is what comes after the epoch that meets the spoilt weights.
        (
            {"tokenizer_learning_rate": 1e30, "tokenizer_batch_size": 10**6},
            ["`tokenizer_learning_rate` is 1e+30", "encoders' output"],
        ),
        ({"learning_rate": 1e30}, ["`learning_rate` is 1e+30", "loss", "nan"]),
        (
            {"learning_rate": 1e30, "train_batch_size": 10**6},
            ["finite score", "`learning_rate` was 1e+30"],
        ),
    ],
)
def test_divergence_names_the_option(whole, rundir, tiny, changes, words):
    ids = {} if "tokenizer_learning_rate" in changes else whole["files"]
    overrides = {**tiny, "tokenizer_path": ids.get("semantic_ids"), **changes}
    with pytest.raises(UserError) as error:
        run("BBQRec", "Mini", overrides=overrides)
    assert all(word in str(error.value) for word in words), error.value


def test_predict_is_the_exact_score_of_the_target(whole):
    config, model, _, _, _, test_data = load_data_and_model(whole["files"]["model"])
    model.eval()
    interaction = next(iter(test_data))[0][torch.arange(300)]
    exact = model.predict(interaction)
    beam = model.full_sort_predict(interaction)
    target = interaction["item_id"].unsqueeze(1)
    ranked = beam.gather(1, target).squeeze(1)
    history = interaction["item_id_list"], interaction["item_length"]
    inside = (model.recommend(*history, config["num_beams"])[0] == target).any(1)
    assert inside.any() and not inside.all()
    assert torch.allclose(ranked[inside], exact[inside], atol=1e-4)
    # Outside the beam the exact score counts, but never above an item of the beam.
    assert (ranked[~inside] <= exact[~inside] + 1e-4).all() and torch.isfinite(ranked).all()


def popularity_recall(train_data, test_data, k=10) -> float:
    """Return the Recall@k of ranking all items by their number of training interactions."""
    counts = np.bincount(train_data._dataset.inter_feat["item_id"].numpy())
    counts[0] = -1
    top = np.argsort(-counts, kind="stable")[:k]
    return float(np.isin(test_data._dataset.inter_feat["item_id"].numpy(), top).mean())


def test_beats_popularity_on_mini(rundir, tiny):
    """A short run of a small model ranks far better than counting does."""
    longer = {"tokenizer_epochs": 4, "epochs": 8, "eval_step": 8}
    loss = {"generation_loss": "item"}  # the faster of the two to learn
    result = run("BBQRec", "Mini", overrides={**tiny, **longer, **loss})
    _, _, _, train_data, _, test_data = load_data_and_model(result["files"]["model"])
    popular = popularity_recall(train_data, test_data)
    assert 0.05 < popular < 0.12
    assert result["test_result"]["recall@10"] > 2 * popular
