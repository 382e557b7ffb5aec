"""The Python face: run, load_run, recommendations and semantic IDs over raw tokens."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.utils.case_study import full_sort_topk

import recbole_bbqrec
from recbole_bbqrec import load_run, loaded_run, quick_start, run
from recbole_bbqrec.answers import recommender
from recbole_bbqrec.answers import scores as scoring
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.generator.inference.exact import exact_scores
from recbole_bbqrec.quick_start import load_data_and_model
from recbole_bbqrec.run_files.checkpoint import load_checkpoint
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from tests.support.runs import ROOT, TINY, finished_run

SMALL = {"data_path": TINY["data_path"], "epochs": 1, "show_progress": False, "state": "ERROR"}
N_ITEMS = 405
SASREC = {**SMALL, "hidden_size": 16, "inner_size": 32, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 6}


def trained(tmp_path_factory, model: str, options: dict):
    return finished_run(tmp_path_factory.mktemp(model), model, options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of a tiny BBQRec run."""
    return trained(tmp_path_factory, "BBQRec", TINY).files


@pytest.fixture(scope="module")
def bbqrec(files):
    return load_run(files.directory)


@pytest.fixture(scope="module")
def sasrec(tmp_path_factory):
    """RecBole's SASRec, which reads the last 6 items."""
    return load_run(trained(tmp_path_factory, "SASRec", SASREC).files.model)


@pytest.fixture(scope="module")
def fpmc(tmp_path_factory):
    """RecBole's FPMC, which learns a vector for each user."""
    return load_run(trained(tmp_path_factory, "FPMC", {**SMALL, "embedding_size": 8}).files.model)


@pytest.fixture(scope="module")
def sequences() -> dict[str, list[str]]:
    """Every user's items in time order, read from the file."""
    path = ROOT / "dataset/Mini/Mini.inter"
    events = pd.read_csv(path, sep="\t", header=0, names=["user", "item", "time", "unix_time"])
    events = events.sort_values("time", kind="stable")
    return {user: group["item"].tolist() for user, group in events.groupby("user")}


def histories_of(loaded) -> list[list[str]]:
    """Return the history of each user that the evaluation of the test split reads."""
    rows, tokens = loaded.test_data._dataset.inter_feat, loaded.dataset.field2id_token["item_id"]
    pairs = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist())
    return [[tokens[item] for item in items[:length]] for items, length in pairs]


def internal(loaded, table: pd.DataFrame) -> torch.Tensor:
    """Internal item ids [n, k] of a table of recommendations."""
    ids = [loaded.dataset.token2id("item_id", item) for item in table["item"]]
    return torch.tensor(ids).view(-1, int(table["rank"].max()))


# ---- what is recommended ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["bbqrec", "sasrec"])
def test_ranks_as_the_evaluation_of_the_run(name, request):
    loaded = request.getfixturevalue(name)
    ids = internal(loaded, loaded.recommend(histories=histories_of(loaded), k=10))
    hits = ids == loaded.test_data._dataset.inter_feat["item_id"].unsqueeze(1)  # [n, 10]
    ndcg = (hits / torch.arange(2, 12).double().log2()).sum(1).mean()
    result = load_result(request, name)
    assert float(hits.any(1).double().mean()) == pytest.approx(result["recall@10"], abs=1e-6)
    assert float(ndcg) == pytest.approx(result["ndcg@10"], abs=1e-6)


def load_result(request, name: str) -> dict:
    """Test metrics of a run again, by the trainer."""
    from recbole_bbqrec.trainer.registry import get_trainer_class

    config, model, *_, test_data = request.getfixturevalue(name)
    trainer = get_trainer_class(config["model"])(config, model)
    return trainer.evaluate(test_data, load_best_model=False)


def test_a_beam_as_wide_as_the_catalogue_equals_the_exact_scorer(bbqrec):
    histories = histories_of(bbqrec)[:20]
    table = bbqrec.recommend(histories=histories, k=N_ITEMS)
    model, rows = bbqrec.model, bbqrec.test_data._dataset.inter_feat
    items = rows["item_id_list"][:20, : int(rows["item_length"][:20].max())]
    with torch.no_grad():
        memory = model.generator.encode(model.catalogue, items)
        exact = exact_scores(model.generator, model.catalogue, memory)  # [20, n_items]
    ids = internal(bbqrec, table)
    scores = torch.from_numpy(table["score"].to_numpy()).view(20, -1)
    assert (ids.sort(1).values == torch.arange(1, N_ITEMS + 1)).all()  # each item once, no [PAD]
    torch.testing.assert_close(scores, exact.gather(1, ids), atol=1e-4, rtol=1e-4)
    assert (scores[:, 1:] <= scores[:, :-1]).all()


def test_the_beam_is_widened_for_one_call(bbqrec):
    before = bbqrec.recommend(users=["u0001"], k=5)
    assert bbqrec.config["num_beams"] == 20
    wide = bbqrec.recommend(users=["u0001"], k=100, exclude_history=True)
    assert wide["rank"].tolist() == list(range(1, 101)) and wide["score"].is_monotonic_decreasing
    assert bbqrec.model.num_beams == 20 and bbqrec.model.mask_history is False
    pd.testing.assert_frame_equal(bbqrec.recommend(users=["u0001"], k=5), before)


def test_scores_are_those_of_recbole_s_own_function(sasrec):
    users = np.arange(1, 30)
    scores, ids = full_sort_topk(users, sasrec.model, sasrec.test_data, k=8)
    rows = sasrec.test_data._dataset.inter_feat["user_id"].tolist()
    every = histories_of(sasrec)
    histories = [every[rows.index(user)] for user in users]
    table = sasrec.recommend(histories=histories, k=8)
    assert torch.equal(internal(sasrec, table), ids)
    torch.testing.assert_close(torch.from_numpy(table["score"].to_numpy()).view(-1, 8), scores)


@pytest.mark.parametrize("name", ["bbqrec", "sasrec"])
def test_a_user_is_the_whole_sequence(name, request, sequences):
    loaded = request.getfixturevalue(name)
    tokens = loaded.dataset.field2id_token["user_id"][1:]
    users = sorted(tokens, key=lambda user: len(sequences[user]))[::40]  # 5 to 30 events
    assert len(sequences[users[-1]]) > 20
    by_user = loaded.recommend(users=users, k=5)
    by_history = loaded.recommend(histories=[sequences[user] for user in users], k=5)
    assert by_user["user"].tolist() == np.repeat(users, 5).tolist()
    assert by_history["user"].tolist() == np.repeat(range(len(users)), 5).tolist()
    for column in ("rank", "item", "score"):
        assert by_user[column].tolist() == by_history[column].tolist()
    held_out = loaded.recommend(histories=[sequences[user][:-1] for user in users], k=5)
    assert held_out["score"].tolist() != by_user["score"].tolist()  # the last item counts


@pytest.mark.parametrize("name", ["bbqrec", "sasrec"])
def test_excluded_items_leave_the_others_in_order(name, request):
    loaded = request.getfixturevalue(name)
    history = histories_of(loaded)[0][:4]
    everything = loaded.recommend(histories=[history], k=N_ITEMS)
    rest = loaded.recommend(histories=[history], k=50, exclude_history=True)
    expected = everything[~everything["item"].isin(history)]["item"].tolist()
    assert rest["item"].tolist() == expected[:50] and set(history) <= set(everything["item"])
    assert set(loaded.recommend(histories=[history[:1] * 3], k=N_ITEMS)["item"]) >= {history[0]}
    with pytest.raises(UserError, match=r"405 items, 4 of which are excluded as the history of 0"):
        loaded.recommend(histories=[history], k=402, exclude_history=True)


def test_history_is_excluded_where_the_run_masks_it(sasrec, sequences):
    masking = sasrec._replace(config={**sasrec.config.final_config_dict, "mask_history": True})
    users = ["u0001", "u0002", "u0003"]
    excluded = sasrec.recommend(users, k=N_ITEMS - 6, exclude_history=True)
    pd.testing.assert_frame_equal(masking.recommend(users, k=N_ITEMS - 6), excluded)
    assert not set(sequences["u0001"][-6:]) & set(excluded["item"][: N_ITEMS - 6])


@pytest.mark.parametrize("name", ["bbqrec", "sasrec"])
def test_many_users_in_batches(name, request, monkeypatch):
    loaded = request.getfixturevalue(name)
    users = loaded.dataset.field2id_token["user_id"][1:101].tolist()
    whole = loaded.recommend(users=users, k=5)
    monkeypatch.setattr(recommender, "_ROWS", 7)
    pd.testing.assert_frame_equal(loaded.recommend(users=users, k=5), whole, rtol=1e-4)
    pd.testing.assert_frame_equal(
        loaded.recommend(users=users[:1] * 9, k=1), pd.concat([whole[:1]] * 9, ignore_index=True),
        rtol=1e-4,
    )  # fmt: skip


def test_pairs_score_as_the_whole_catalogue(sasrec, monkeypatch):
    full = sasrec.recommend(users=["u0001", "u0002", "u0003"], k=20)
    monkeypatch.setattr(scoring, "_PAIRS", 2 * (N_ITEMS + 1))

    def missing(interaction):
        raise NotImplementedError

    monkeypatch.setattr(sasrec.model, "full_sort_predict", missing)
    pairs = sasrec.recommend(users=["u0001", "u0002", "u0003"], k=20)
    pd.testing.assert_frame_equal(pairs, full, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["next_day", "time:0.5"])
def test_events_that_a_protocol_leaves_out_count(tmp_path_factory, sequences, protocol):
    options = {**SMALL, "protocol": protocol, "time_target": "first"}
    loaded = load_run(trained(tmp_path_factory, "ItemNeighbours", options).files.model)
    users = list(sequences)
    columns = ["rank", "item", "score"]
    known = loaded.recommend(users=users, k=5)[columns]
    given = loaded.recommend(histories=[sequences[user] for user in users], k=5)[columns]
    pd.testing.assert_frame_equal(known, given)


def test_models_with_user_vectors_rank_for_users_only(fpmc, sequences, monkeypatch):
    table = fpmc.recommend(users=["u0001", "u0002"], k=3)
    user = torch.tensor([fpmc.dataset.token2id("user_id", "u0002")])
    last = torch.tensor([fpmc.dataset.token2id("item_id", sequences["u0002"][-1])])
    parts = [getattr(fpmc.model, f"{name}_emb").weight for name in ("UI", "IU", "LI", "IL")]
    user_item, item_user, last_item, item_last = (part.detach() for part in parts)
    scores = user_item[user] @ item_user.T + last_item[last] @ item_last.T
    assert torch.equal(internal(fpmc, table)[1], scores[0, 1:].topk(3).indices + 1)
    with pytest.raises(UserError, match="FPMC reads the field 'user_id'.*give `users`"):
        fpmc.recommend(histories=[["i0398"]])
    monkeypatch.setattr(fpmc.model, "full_sort_predict", lambda rows: rows["item_id"])
    with pytest.raises(UserError, match="the field 'item_id'.*not have here: use another model"):
        fpmc.recommend(users=["u0001"], k=3)


# ---- mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither"),
        ({"users": ["u0001"], "histories": [["i0398"]]}, "both"),
        ({"users": ["u001x"]}, "Unknown user 'u001x'.*617 users.*Did you mean `u0"),
        ({"users": ["[PAD]"]}, r"Unknown user '\[PAD\]'"),
        ({"users": "u0001"}, r"users is 'u0001'; expected a list of raw tokens: \['u0001'\]"),
        ({"histories": [["i0398"], ["i398"]]}, "Unknown item 'i398'.*Did you mean `i0398`"),
        ({"histories": [["i0398"], []]}, r"histories\[1\] is empty"),
        ({"histories": ["i0398"]}, r"histories\[0\] is 'i0398'; expected a list"),
        ({"users": ["u0001"], "k": 0}, "k is 0"),
        ({"users": ["u0001"], "k": 406}, "k is 406; data set 'Mini' has 405 items. Ask for fewer"),
    ],
)
@pytest.mark.parametrize("name", ["bbqrec", "sasrec"])
def test_mistakes_are_named(name, arguments, message, request):
    with pytest.raises(UserError, match=message):
        request.getfixturevalue(name).recommend(**arguments)


def test_nobody_asked_for_anything(sasrec):
    assert list(sasrec.recommend(users=[])) == ["user", "rank", "item", "score", "title"]
    assert len(sasrec.recommend(histories=[])) == 0


def test_diverged_weights_give_no_ranking(sasrec):
    weight = sasrec.model.item_embedding.weight.data
    kept = weight.clone()
    weight.fill_(torch.nan)
    try:
        with pytest.raises(UserError, match="diverged"):
            sasrec.recommend(users=["u0001"])
    finally:
        weight.copy_(kept)


# ---- semantic IDs ----------------------------------------------------------------------


def test_semantic_ids_are_those_of_the_file(bbqrec, files):
    table, stored = bbqrec.semantic_ids(), SemanticIds.load(files.semantic_ids)
    columns = [f"level{n}/{signal}" for n in (1, 2, 3) for signal in ("id", "text", "image")]
    assert list(table) == ["item", *columns]
    row_of = {token: row for row, token in enumerate(stored.item_tokens)}
    codes = stored.codes[[row_of[item] for item in table["item"]]].flatten(1)
    assert table[columns].to_numpy().tolist() == codes.tolist() and len(table) == N_ITEMS


def test_digits_of_product_quantization(tmp_path_factory):
    options = {**SMALL, "code_digits": 4, "codebook_size": 16, "hidden_size": 16, "n_heads": 2}
    rpg = load_run(trained(tmp_path_factory, "RPG", {**options, "code_components": 16}).files.model)
    table = rpg.semantic_ids()
    assert list(table) == ["item", *(f"digit{n}/text" for n in (1, 2, 3, 4))]
    assert table.iloc[5, 1:].tolist() == rpg.model.item_codes.codes[6].tolist()


def test_other_models_have_no_semantic_ids(sasrec):
    with pytest.raises(UserError, match="SASRec has no semantic IDs"):
        sasrec.semantic_ids()


# ---- loading ---------------------------------------------------------------------------


def test_directory_and_file_load_the_same_run(files, bbqrec):
    again = load_run(str(files.model))
    assert repr(again) == repr(bbqrec) == "<LoadedRun: BBQRec on Mini, 617 users, 405 items>"
    config, model, dataset, *loaders = again
    assert (config, model, dataset) == (again.config, again.model, again.dataset)
    assert loaders == [again.train_data, again.valid_data, again.test_data]
    assert isinstance(load_data_and_model(files.model), type(again)) and not model.training
    users = ["u0005", "u0006"]
    pd.testing.assert_frame_equal(again.recommend(users), bbqrec.recommend(users))


@pytest.mark.parametrize("path", ["nowhere", "nowhere.pth"])
def test_a_missing_run_is_named(path, rundir):
    with pytest.raises(UserError, match="There is no run at nowhere"):
        load_run(path)


# ---- documentation ---------------------------------------------------------------------


@pytest.fixture
def example_run(files, rundir, monkeypatch):
    """The tiny run as saved/my-run, beside the data sets."""
    (rundir / "saved").mkdir()
    (rundir / "saved/my-run").symlink_to(files.directory)
    (rundir / "saved/my-run.pth").symlink_to(files.model)
    (rundir / "dataset").symlink_to(ROOT / "dataset")


@pytest.mark.parametrize("k", [0, -1, 5.0, "5", None, True])
def test_k_is_a_whole_number(example_run, k):
    with pytest.raises(UserError, match="expected a whole number of at least 1"):
        load_run("saved/my-run").recommend(users=["u0001"], k=k)


def test_tables_and_mappings_are_no_lists(example_run):
    loaded = load_run("saved/my-run")
    for given in ({"users": pd.DataFrame({"u": ["u0001"]})}, {"histories": {"a": ["i0398"]}}):
        with pytest.raises(UserError, match="expected a list, an array or a column"):
            loaded.recommend(**given)


@pytest.mark.parametrize("file", ["tokenizer.pth", "resume.pth"])
def test_other_checkpoints_of_a_run_are_no_model(example_run, file):
    if not Path("saved/my-run", file).is_file():
        torch.save({"format": load_checkpoint("saved/my-run.pth")["format"]}, "other.pth")
        file = "../../other.pth"
    with pytest.raises(UserError, match="is not the saved model of a run"):
        load_run(Path("saved/my-run", file))


@pytest.mark.parametrize("path", [".", ""])
def test_a_folder_that_is_no_run(example_run, path):
    with pytest.raises(UserError, match="no run at"):
        load_run(path)


def test_examples_of_the_docstrings(example_run):
    finder, results = doctest.DocTestFinder(), []
    documented = (run, load_run, loaded_run.LoadedRun, recbole_bbqrec.Session)
    for example in (test for thing in documented for test in finder.find(thing, globs={})):
        results.append(doctest.DocTestRunner().run(example))
    assert sum(result.attempted for result in results) >= 10
    assert all(result.failed == 0 for result in results)


def test_first_python_block_of_the_readme(example_run):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    for theirs, ours in (("196", "u0017"), ("50", "i0398"), ("172", "i0395")):
        assert theirs in code
        code = code.replace(theirs, ours)
    exec(code, names)
    assert names["top"]["user"].tolist() == ["u0017"] * 10
    assert names["top"]["rank"].tolist() == list(range(1, 11))
    assert len(names["ids"]) == N_ITEMS and names["dataset"].item_num == N_ITEMS + 1


def test_from_the_shell(example_run):
    code = "from recbole_bbqrec import load_run; " + (
        "print(load_run('saved/my-run').recommend(users=['u0001'], k=5).to_csv(index=False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "user,rank,item,score,title"
    assert len(lines) == 6 and lines[5].startswith("u0001,5")


def test_importing_the_package_loads_neither_torch_nor_recbole():
    code = "import sys, recbole_bbqrec; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "pandas", "recbole_bbqrec.quick_start"}


def test_names_of_the_package():
    assert {"run", "load_run", "Session", "add_model", "__version__"} == set(recbole_bbqrec.__all__)
    assert recbole_bbqrec.run is quick_start.run
    assert recbole_bbqrec.load_run is quick_start.load_run
    with pytest.raises(AttributeError, match="has no attribute 'load_runs'"):
        recbole_bbqrec.load_runs  # noqa: B018


def test_path_of_a_run_store(files, tmp_path):
    """A run of ``compare`` names its model in ``result.json``, relative to its directory."""
    import json

    result = json.loads(files.result.read_text())
    result["files"] = {"model": str(Path(files.model).resolve())}
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert load_run(tmp_path).config["model"] == "BBQRec"
