"""Per-user test metrics: their mean is the reported figure, whatever collects the rankings."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.quick_start import load_data_and_model, run
from recbole_bbqrec.run_files.per_user import PerUser
from tests.support.runs import TINY

METRICS = ["Recall", "NDCG", "MRR", "Hit", "Precision"]
SMALL = {
    "data_path": TINY["data_path"], "embedding_size": 16, "hidden_size": 16, "epochs": 1,
    "train_batch_size": 512, "learning_rate": 0.003, "show_progress": False, "state": "WARNING",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [("GRU4Rec", SMALL), ("BBQRec", {**TINY, "epochs": 1, "tokenizer_epochs": 2})],
)
def test_mean_is_the_reported_metric(rundir, model, options):
    result = run(model, "Mini", overrides={**options, "metrics": METRICS})
    per_user = PerUser.load(result["files"]["per_user"])
    assert per_user.split_hash == result["split_hash"]
    assert set(per_user.metrics) == set(result["test_result"])
    for name, value in result["test_result"].items():
        assert per_user.metrics[name].dtype == np.float32
        assert per_user.metrics[name].mean(dtype=np.float64) == pytest.approx(value, abs=1e-6)
    # Compute the metrics from the ranks, by their definitions.
    rank = per_user.rank.astype(float)
    assert 0 < (rank > 0).mean() < 1 and rank.max() <= per_user.max_rank == 10
    for k in (5, 10):
        hit = (rank > 0) & (rank <= k)
        gain = np.divide(1, np.log2(rank + 1), where=hit, out=np.zeros_like(rank))
        np.testing.assert_array_equal(per_user.metrics[f"recall@{k}"], hit)
        np.testing.assert_allclose(per_user.metrics[f"ndcg@{k}"], gain, rtol=1e-6)

    dataset = load_data_and_model(result["files"]["model"])[5]._dataset
    ids = dataset.inter_feat[dataset.uid_field].numpy()
    assert per_user.users.tolist() == dataset.field2id_token[dataset.uid_field][ids].tolist()


@pytest.mark.slow
def test_each_users_rank_is_its_own(rundir):
    """Compute the rank of some users from the model's scores again."""
    result = run("GRU4Rec", "Mini", overrides=SMALL)
    per_user = PerUser.load(result["files"]["per_user"])
    config, model, dataset, _, _, test_data = load_data_and_model(result["files"]["model"])
    model.eval()
    ranks = dict(zip(per_user.users.tolist(), per_user.rank.tolist()))
    rows = test_data._dataset.inter_feat
    for row in np.random.default_rng(0).permutation(len(rows))[:60]:
        single = rows[[int(row)]]
        scores = model.full_sort_predict(single.to(config["device"]))[0]
        scores[0] = -np.inf
        rank = 1 + int((scores > scores[single["item_id"][0]]).sum())
        token = dataset.field2id_token["user_id"][int(single["user_id"][0])]
        assert ranks[token] == (rank if rank <= 10 else 0)


def test_without_test_the_split_is_left_alone(rundir, monkeypatch):
    monkeypatch.setattr("recbole_bbqrec.quick_start._test", None)  # a call would fail
    result = run("GRU4Rec", "Mini", overrides=SMALL, test=False)
    assert result["test_result"] == {}
    assert result["best_valid_result"]["ndcg@10"] > 0
    assert "per_user" not in result["files"]


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "per_user.npz"
    users = np.array(["a", "ü"])
    good = PerUser(users, np.array([1, 0], "i4"), 10, {"recall@10": np.array([1, 0], "f4")}, "x")
    good.save(path)
    assert PerUser.load(path).users.tolist() == ["a", "ü"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="per_user.npz"):
        PerUser.load(path)
    np.savez(path, users=users, rank=np.array([1]), max_rank=10, split_hash="x")
    with pytest.raises(UserError, match="different lengths"):
        PerUser.load(path)
