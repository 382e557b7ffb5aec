"""The report card's numbers against brute force, RecBole's own evaluation and the data files."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_bbqrec.cli.main import main
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.report_card import breakdowns
from recbole_bbqrec.experiment.report_card.beam import overlap
from recbole_bbqrec.experiment.report_card.codes import Codes, code_use, collisions
from recbole_bbqrec.experiment.report_card.collect import collect
from recbole_bbqrec.experiment.report_card.curves import learning_curves
from recbole_bbqrec.experiment.report_card.examples import example_users
from recbole_bbqrec.experiment.report_card.lenient import strict_and_lenient
from recbole_bbqrec.experiment.report_card.ranking import Ranking, rank_test_users
from recbole_bbqrec.experiment.report_card.similarity import similarity_profile
from recbole_bbqrec.metrics.per_user_values import summary
from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.run_files.finished_run import NEEDED, FinishedRun
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from tests.support.runs import EXACT_USERS, TINY, finished_run

ALL_METRICS = ["Recall", "NDCG", "Hit", "MRR", "Precision", "MAP"]


@pytest.fixture(scope="module")
def loaded(crowded):
    """config, model, data set, training data, and the ranking of all test users."""
    config, model, dataset, train_data, _, test_data = load_data_and_model(crowded.files.model)
    return config, model, dataset, train_data, rank_test_users(config, model, test_data)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> FinishedRun:
    small = {"hidden_size": 16, "inner_size": 32, "n_layers": 1, "epochs": 2}
    options = {**small, "metrics": ALL_METRICS, "topk": [3, 10], "mask_history": True}
    kept = {key: TINY[key] for key in ("data_path", "show_progress", "state", "eval_step")}
    return finished_run(tmp_path_factory.mktemp("baseline"), "SASRec", {**kept, **options})


def sequences() -> dict[str, list[str]]:
    """Items of each user of Mini in time order, from the file."""
    lines = (Path(TINY["data_path"]) / "Mini" / "Mini.inter").read_text().splitlines()[1:]
    events: dict[str, list[tuple[float, str]]] = {}
    for user, item, time, _ in (line.split("\t") for line in lines):
        events.setdefault(user, []).append((float(time), item))
    return {user: [item for _, item in sorted(found)] for user, found in events.items()}


# metrics --------------------------------------------------------------------------------------


def test_strict_metrics_are_those_of_the_run(card, crowded):
    assert card["test"]["agree"] is True
    assert card["test"]["reported"] == crowded.result["test_result"]
    assert card["test"]["recomputed"] == pytest.approx(crowded.result["test_result"], abs=1e-6)
    assert card["lenient"]["strict"] == card["test"]["recomputed"]


@pytest.mark.slow
def test_metrics_of_a_baseline_are_recboles(baseline):
    """All six kinds, with masked histories; RecBole's evaluator computed result.json."""
    found = collect(baseline)["test"]
    assert len(found["reported"]) == 12 and found["agree"]
    assert found["recomputed"] == pytest.approx(found["reported"], abs=1e-6)


@pytest.mark.slow
def test_models_that_score_pairs_only_are_ranked_alike(baseline, monkeypatch):
    """RecBole's DIN and others have no full_sort_predict; here SASRec is made to lack it."""
    config, model, _, _, _, test_data = load_data_and_model(baseline.files.model)
    whole = rank_test_users(config, model, test_data)

    def refuse(interaction):
        raise NotImplementedError

    monkeypatch.setattr(model, "full_sort_predict", refuse)
    pairs = rank_test_users(config, model, test_data)
    assert torch.equal(pairs.targets, whole.targets)
    # Sums in another order may swap near ties.
    assert (pairs.items == whole.items).double().mean() > 0.999


def test_a_difference_to_the_run_is_seen(crowded):
    other = {**crowded.result["test_result"], "recall@10": 0.5}
    changed = FinishedRun(crowded.files, {**crowded.result, "test_result": other}, [])
    found = collect(changed, sample=1)
    assert found["test"]["agree"] is False
    assert found["curves"] is None and "epochs.jsonl" in found["left_out"]["curves"]


def test_buckets_add_up_to_the_whole(card):
    total = card["test"]["recomputed"]
    for section in ("history_length", "popularity"):
        users = [entry["users"] for entry in card[section]]
        assert sum(users) == card["test"]["users"] == 617
        for name, value in total.items():
            means = [entry["metrics"].get(name, 0.0) for entry in card[section]]
            assert np.average(means, weights=users) == pytest.approx(value)
    for share in ("share_of_items", "share_of_targets", "share_of_recommendations"):
        assert sum(entry[share] for entry in card["popularity"]) == pytest.approx(1)
    assert sum(entry["items"] for entry in card["popularity"]) == 405


def test_margin_is_the_normal_interval_of_the_mean():
    values = {"recall@10": np.array([1.0, 0, 0, 0, 1, 1, 1, 1])}
    found = summary(values, np.array([True] * 5 + [False] * 3))
    deviation = math.sqrt((2 * 0.6**2 + 3 * 0.4**2) / 4)
    assert found["users"] == 5 and found["metrics"] == {"recall@10": 0.4}
    assert found["half_width_95"]["recall@10"] == pytest.approx(1.96 * deviation / math.sqrt(5))
    only_hits = summary(values, np.array([False] * 5 + [True] * 3))
    assert only_hits["half_width_95"] == {}
    assert summary(values, np.zeros(8, bool))["metrics"] == {}


# history length, popularity, cold items --------------------------------------------------------


def test_training_counts_are_the_files(loaded, card):
    _, model, dataset, train_data, _ = loaded
    counts = breakdowns.training_counts(train_data, model.n_items)
    expected = Counter(item for items in sequences().values() for item in items[:-2])
    assert {t: int(c) for t, c in zip(dataset.item_tokens, counts) if c} == dict(expected)
    assert card["run"]["training_events"] == sum(expected.values())


def test_history_lengths_are_the_files(card):
    lengths = [min(20, len(items) - 1) for items in sequences().values()]
    for entry in card["history_length"]:
        assert entry["users"] == sum(entry["from"] <= n <= entry["to"] for n in lengths)
    assert card["history_length"][-1]["from"] == card["history_length"][-1]["to"] == 20


@pytest.mark.parametrize(
    ("counts", "buckets"),
    [
        ([9, 1, 2, 3, 4], [(1, 1), (2, 2), (3, 3), (4, 4)]),
        ([0, 0, 5, 5, 5], [(0, 0), (1, 5)]),  # [PAD] does not make a cold bucket, item 1 does
        ([0, 7, 7, 7, 8], [(1, 7), (8, 8)]),
        ([0, 0, 0], [(0, 0)]),
    ],
)
def test_popularity_buckets(counts, buckets):
    assert breakdowns.popularity_buckets(np.array(counts)) == buckets


def toy_ranking(items: list[list[int]], targets: list[int]) -> Ranking:
    n = len(targets)
    histories = torch.ones(n, 3, dtype=torch.int64)
    return Ranking(
        torch.arange(n), histories, torch.full((n,), 3), torch.tensor(targets), torch.tensor(items)
    )


def test_cold_items():
    ranking = toy_ranking([[1, 2], [3, 1], [1, 2]], [3, 1, 4])
    found = breakdowns.cold_items(ranking, np.array([0, 6, 2, 0, 0]))
    assert found == {
        "items": 4, "cold_items": 2, "share_of_items": 0.5, "share_of_targets": 2 / 3,
        "share_of_recommendations": 1 / 6, "recommended_items": 3, "coverage": 0.75,
    }  # fmt: skip


# codes ----------------------------------------------------------------------------------------


def test_code_use_and_collisions_against_the_file(card, crowded):
    ids = SemanticIds.load(crowded.files.semantic_ids)
    before = ids.codes_before.tolist()
    assert card["codes"]["before_reassignment"] is True
    assert len(card["codes"]["use"]) == 2 * 3
    for entry in card["codes"]["use"]:
        level, signal = int(entry["level"][-1]) - 1, ids.signals.index(entry["signal"])
        used = Counter(item[level][signal] for item in before)
        entropy = -sum(n / 405 * math.log(n / 405) for n in used.values())
        assert entry["used"] == len(used) and entry["utilisation"] == len(used) / 4
        assert entry["perplexity"] == pytest.approx(math.exp(entropy))

    groups = Counter(str(item) for item in before)
    shared = [n for n in groups.values() if n > 1]
    assert card["collisions"]["before"] == {"items": sum(shared), "groups": len(shared)}
    assert card["collisions"]["group_sizes"] == {str(s): n for s, n in Counter(shared).items()}
    assert card["collisions"]["before"]["items"] == ids.metadata["collisions_before"] > 100
    assert card["collisions"]["after"]["items"] == ids.metadata["collisions_after"]


def test_codes_without_those_before():
    codes = Codes(torch.tensor([[[0]], [[1]], [[1]]]), None, 2, ("text",), ("level 1",))
    assert collisions(codes)["before"] is None and collisions(codes)["after"]["items"] == 2
    assert code_use(codes)["before_reassignment"] is False


def test_lenient_metrics_against_brute_force(card, crowded, loaded):
    _, _, dataset, _, ranking = loaded
    ids = SemanticIds.load(crowded.files.semantic_ids)
    code_of = dict(zip(ids.item_tokens, (str(c) for c in ids.codes_before.tolist())))
    code_of["[PAD]"] = "none"
    recall, ndcg = [], []
    for listed, target in zip(ranking.items.tolist(), ranking.targets.tolist()):
        wanted = code_of[dataset.item_tokens[target]]
        places = [i for i, x in enumerate(listed) if code_of[dataset.item_tokens[x]] == wanted]
        recall.append(float(bool(places)))
        ndcg.append(1 / math.log2(places[0] + 2) if places else 0.0)
    lenient = card["lenient"]["lenient"]
    assert lenient["recall@10"] == pytest.approx(np.mean(recall))
    assert lenient["ndcg@10"] == pytest.approx(np.mean(ndcg))
    assert all(lenient[name] >= value for name, value in card["lenient"]["strict"].items())
    assert lenient["recall@10"] > card["lenient"]["strict"]["recall@10"]


def test_without_collisions_lenient_is_strict():
    codes = torch.arange(5).view(5, 1, 1)
    found = strict_and_lenient(
        toy_ranking([[1, 2], [3, 4]], [2, 1]),
        Codes(codes, codes, 5, ("id",), ("level 1",)), ["Recall", "NDCG"], [1, 2],
    )  # fmt: skip
    assert found["strict"] == found["lenient"]
    assert found["strict"]["recall@2"] == 0.5 and found["strict"]["recall@1"] == 0


def test_semantic_ids_of_an_older_version(crowded, tmp_path):
    """One section less, with the reason: the codes before re-assignment are absent."""
    ids = SemanticIds.load(crowded.files.semantic_ids)
    directory = tmp_path / crowded.files.directory.name
    directory.mkdir()
    directory.with_suffix(".pth").write_bytes(crowded.files.model.read_bytes())
    (directory / "result.json").write_bytes(crowded.files.result.read_bytes())
    SemanticIds(
        ids.item_tokens, ids.codes, ids.vectors, ids.codebooks, ids.signals, ids.metadata
    ).save(directory / "semantic_ids.safetensors")
    found = collect(FinishedRun.at(directory), sample=1)
    assert found["lenient"] is None and "not stored" in found["left_out"]["lenient"]
    assert found["collisions"]["before"] is None and found["codes"] is not None


# similarity, beam -----------------------------------------------------------------------------


def test_similarity_buckets_against_brute_force(loaded):
    _, model, _, _, ranking = loaded
    some = ranking.take(torch.arange(0, 617, 60))
    found = similarity_profile(model, some)
    vectors = model.vectors.double().numpy()
    counts = Counter()
    for history, length in zip(some.histories.tolist(), some.lengths.tolist()):
        for j in range(length):
            for i in range(j):
                a, b = vectors[history[i]], vectors[history[j]]
                cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                counts[round((cosine + 1) / 2 * 100)] += 1
    assert found["pairs"] == sum(n * (n - 1) // 2 for n in some.lengths.tolist())
    got = np.array(found["counts"])
    expected = np.array([counts[bucket] for bucket in range(101)])
    assert np.abs(got - expected).sum() <= 2  # float32 against float64, at a bucket's edge
    gate = model.generator.encoder.layers[0].gate.table.detach()
    assert len(found["gates"]) == 1 and len(found["gates"][0]["mean"]) == 101
    assert found["gates"][0]["mean"][7] == pytest.approx(float(gate[7].mean()))
    assert all(a <= b for a, b in zip(found["gates"][0]["low"], found["gates"][0]["high"]))


def test_a_beam_as_wide_as_the_catalogue_is_exact(crowded, card):
    wide = collect(crowded, sample=12, overrides={"num_beams": 405})["beam"]
    assert wide["users"] == 12
    assert wide["overlap"] == {"as evaluated": 1.0, "float32": 1.0}
    assert wide["same_list"]["float32"] == 1.0
    assert wide["metrics"]["exact"] == wide["metrics"]["float32"]
    assert card["beam"]["users"] == EXACT_USERS
    assert 0.5 < card["beam"]["overlap"]["as evaluated"] <= 1


def test_masked_histories_are_masked_in_the_exact_lists_too(crowded):
    masked = collect(crowded, sample=12, overrides={"num_beams": 405, "mask_history": True})
    assert masked["beam"]["overlap"] == {"as evaluated": 1.0, "float32": 1.0}
    for user in masked["examples"]:
        seen = {item["token"] for item in user["history"]}
        assert not seen & {item["token"] for item in user["recommended"]}


def test_overlap():
    first = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert overlap(first, torch.tensor([[4, 3, 2, 1], [1, 9, 8, 7]])) == (1 + 0.25) / 2


# curves, stages, examples ---------------------------------------------------------------------


def test_learning_curves_hold_every_term(card, crowded):
    assert [(p["phase"], p["epochs"]) for p in card["curves"]] == [("tokenize", 3), ("generate", 2)]
    panels = [{p["name"]: p["series"] for p in phase["panels"]} for phase in card["curves"]]
    assert {"total", "contrastive", "reconstruction", "mim", "codebook", "commitment"} <= set(
        panels[0]
    )
    assert {"estimator", "utilisation", "learning rate", "validation recall"} <= set(panels[0])
    assert set(panels[0]["codebook"]) == {"id", "text", "image"}
    lines = [line for line in crowded.epochs if line["phase"] == "tokenize"]
    assert panels[0]["contrastive"][""] == [[x["epoch"], x["terms"]["contrastive"]] for x in lines]
    level = [v for k, v in lines[2]["terms"].items() if k.startswith("perplexity/level2/")]
    assert len(level) == 3
    assert panels[0]["perplexity"]["level2"][-1] == [2, pytest.approx(np.mean(level))]
    assert set(panels[1]["loss by level"]) == {"level 1", "level 2"}
    assert set(panels[1]["validation ndcg"]) == {"ndcg@5", "ndcg@10"}


def test_unknown_values_leave_a_gap():
    lines = [
        {"phase": "train", "epoch": 0, "terms": {"loss": None}},
        {"phase": "train", "epoch": 1, "terms": {"loss": 2.0}, "learning_rate": None},
    ]
    assert learning_curves(lines) == [
        {"phase": "train", "epochs": 2, "panels": [{"name": "loss", "series": {"": [[1, 2.0]]}}]}
    ]


def test_stages(card, crowded):
    found = {entry["stage"]: entry for entry in card["stages"]}
    assert list(found) == ["prepare", "tokenize", "generate", "train", "test"]
    assert {name: entry["seconds"] for name, entry in found.items()} == crowded.result["seconds"]
    peaks = [found[name]["peak_memory_mib"]["process"] for name in found]
    assert peaks == sorted(peaks) and peaks[-1] == crowded.result["peak_memory_mib"]["process"]


def test_examples_are_the_files_users(card):
    taken, titles = sequences(), read_titles(Path(TINY["data_path"]) / "Mini" / "Mini.titles.tsv")
    assert len(card["examples"]) == 10
    assert sum(user["rank"] is not None for user in card["examples"]) == 5
    for user in card["examples"]:
        items = taken[user["user"]]
        assert user["next"] == {"token": items[-1], "title": titles[items[-1]]}
        assert [item["token"] for item in user["history"]] == items[:-1][-20:]
        listed = [item["token"] for item in user["recommended"]]
        place = listed.index(items[-1]) + 1 if items[-1] in listed else None
        assert user["rank"] == place


@pytest.mark.parametrize(("hits", "expected"), [(0, 0), (2, 2), (9, 5), (14, 9), (15, 10)])
def test_examples_fill_up_where_one_kind_is_rare(loaded, hits, expected):
    _, _, dataset, _, ranking = loaded
    some = ranking.take(torch.arange(15))
    items = torch.full_like(some.items, 1).where(some.targets.unsqueeze(1) != 1, 2)
    items[:hits, 3] = some.targets[:hits]
    found = example_users(some._replace(items=items), dataset, {}, seed=1)
    assert len(found) == 10
    assert sum(user["rank"] == 4 for user in found) == expected
    assert found[0]["next"]["title"] == found[0]["next"]["token"]  # no titles known


def test_titles_file(tmp_path):
    path = tmp_path / "X.titles.tsv"
    assert read_titles(path) == {}
    path.write_text("item_id\ttitle\na\tone\ttwo\nb\t\n", encoding="utf-8")
    assert read_titles(path) == {"a": "one two", "b": ""}
    path.write_text("item_id\ttitle\na\tone\nb two\n")
    with pytest.raises(UserError, match="line 3"):
        read_titles(path)


# the command ----------------------------------------------------------------------------------


def test_command_writes_both_files(crowded, card, tmp_path, capsys):
    path = str(crowded.files.directory)
    assert (
        main(["report", path, "--output", str(tmp_path / "new"), "--sample", str(EXACT_USERS)]) == 0
    )
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == card
    assert "<h1>BBQRec" in (tmp_path / "new" / "report.html").read_text()
    names = ["model_card.md", "report.html", "report.json"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == names
    assert str(tmp_path / "new" / "report.html") in capsys.readouterr().out


@pytest.mark.slow
def test_command_on_a_baseline_leaves_sections_out(baseline, capsys):
    assert main(["report", str(baseline.files.model)]) == 0
    report = json.loads((baseline.files.directory / "report.json").read_text())
    absent = {"codes", "collisions", "map", "lenient", "similarity", "beam"}
    assert set(report["left_out"]) == absent and all(report[key] is None for key in absent)
    assert [p["name"] for p in report["curves"][0]["panels"]][0] == "loss"
    page = (baseline.files.directory / "report.html").read_text()
    assert all(text in page for text in report["left_out"].values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere.pth"]),
        (["RUN", "--sample", "0"], ["--sample", "0"]),
        (["RUN", "--data_path", "elsewhere"], ["elsewhere", "data_path"]),
    ],
)
def test_command_refuses(crowded, rundir, capsys, arguments, words):
    arguments = [str(crowded.files.directory) if a == "RUN" else a for a in arguments]
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert not list(rundir.iterdir())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "not finished"),
        ("{", "JSONDecodeError"),
        ("{}", "lacks model"),
        (json.dumps(dict.fromkeys(NEEDED, {})), "no test metrics"),
    ],
)
def test_unfinished_or_damaged_runs_are_refused(tmp_path, content, says):
    (tmp_path / "Run.pth").write_bytes(b"")
    (tmp_path / "Run").mkdir()
    if content is not None:
        (tmp_path / "Run" / "result.json").write_text(content)
    with pytest.raises(UserError, match=says):
        FinishedRun.at(tmp_path / "Run")


def test_missing_libraries_are_named(crowded, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert main(["report", str(crowded.files.directory)]) == 2
    assert "recbole_bbqrec[plots]" in capsys.readouterr().err
