"""Features sit beside RecBole's data set and change neither its ids nor its split."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import MultiModalDataset, check_modalities
from recbole_bbqrec.data.histories import Histories
from recbole_bbqrec.data.layout.prefix_rows import PrefixRows
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.store.splits import planned_split_hash
from tests.support.data import make_config, random_sequences, write_features, write_inter

GOLDEN = {
    "ann": ["p", "q", "r", "s", "t"],
    "bob": ["q", "r", "p"],
    "cid": ["t", "s"],
    "dee": ["s", "p", "q", "t"],
}


def with_features(tmp_path, name="Tiny", seed=0):
    """A random data set, its features by token, and the modality files (with strangers)."""
    rng = np.random.default_rng(seed)
    sequences = random_sequences(rng, n_users=20, n_items=30, longest=13)
    folder = write_inter(tmp_path, name, sequences)
    tokens = [f"i{i}" for i in rng.permutation(30)][:-3] + [f"stranger{i}" for i in range(40)]
    vectors = {}
    for modality, dim in (("text", 5), ("image", 3)):
        order = [tokens[i] for i in rng.permutation(len(tokens))]
        matrix = rng.standard_normal((len(order), dim)).astype(np.float32)
        write_features(folder, name, modality, order, matrix)
        vectors[modality] = dict(zip(order, matrix))
    return vectors


@pytest.mark.parametrize("core", ["[0,inf)", "[5,inf)"])
@pytest.mark.parametrize("seed", range(3))
def test_features_follow_tokens_and_ids_do_not_change(tmp_path, core, seed):
    vectors = with_features(tmp_path, seed=seed)
    settings = {"user_inter_num_interval": core, "item_inter_num_interval": core}
    plain = SequentialDataset(make_config(tmp_path, "Tiny", **settings))
    dataset = MultiModalDataset(
        make_config(tmp_path, "Tiny", modalities=["image", "text"], **settings)
    )
    assert dataset.item_num == plain.item_num
    assert dataset.item_tokens == list(plain.field2id_token["item_id"])
    assert dataset.modalities == ("image", "text")
    assert dataset.inter_num == plain.inter_num
    for name in dataset.modalities:
        features = dataset.item_features(name)
        assert features.matrix.shape[0] == dataset.item_num
        for row, token in enumerate(dataset.item_tokens):
            known = vectors[name].get(token)
            assert bool(features.present[row]) == (known is not None)
            expected = np.zeros(features.dim) if known is None else known
            np.testing.assert_array_equal(features.matrix[row].numpy(), expected)


def test_filtering_drops_items_in_this_test_data(tmp_path):
    """Guards the test above: its 5-core case must really change the vocabulary."""
    with_features(tmp_path, seed=0)
    every = SequentialDataset(make_config(tmp_path, "Tiny"))
    settings = {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[5,inf)"}
    core = SequentialDataset(make_config(tmp_path, "Tiny", **settings))
    assert 1 < core.item_num < every.item_num


def test_parts_of_a_split_share_the_matrices(tmp_path):
    with_features(tmp_path)
    dataset = MultiModalDataset(make_config(tmp_path, "Tiny", modalities=["text"]))
    for part in dataset.build():
        assert type(part) is MultiModalDataset
        assert part.item_features("text").matrix is dataset.item_features("text").matrix


def test_pickle_leaves_the_matrices_out_and_reads_them_again(tmp_path):
    """A deep copy takes the state and sets it by the hooks that a pickle does, loading no bytes."""
    with_features(tmp_path)
    dataset = MultiModalDataset(make_config(tmp_path, "Tiny", modalities=["text"]))
    assert b"ModalityFeatures" not in pickle.dumps(dataset)
    path = tmp_path / "Tiny" / "Tiny.text.npy"
    np.save(path, np.load(path) * 2)  # a new encoder's output
    again = copy.deepcopy(dataset)
    torch.testing.assert_close(
        again.item_features("text").matrix, dataset.item_features("text").matrix * 2
    )


def test_unknown_modality_is_named(tmp_path):
    with_features(tmp_path)
    dataset = MultiModalDataset(make_config(tmp_path, "Tiny", modalities=["text"]))
    with pytest.raises(UserError, match="'audio' is not loaded; `modalities` is \\['text'\\]"):
        dataset.item_features("audio")
    with pytest.raises(UserError, match=r"Tiny\.audio\.npy"):
        MultiModalDataset(make_config(tmp_path, "Tiny", modalities=["audio"]))


@pytest.mark.parametrize(("value", "names"), [(None, []), ([], []), (("text",), ["text"])])
def test_modalities_accepted(value, names):
    assert check_modalities(value) == names


@pytest.mark.parametrize("value", ["text", 3, ["text", "text"], ["id", "text"], [1], [""], {}])
def test_modalities_refused(value):
    with pytest.raises(UserError, match="modalities"):
        check_modalities(value)


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_augmentation_equals_recbole(tmp_path, longest):
    rng = np.random.default_rng(longest)
    folder = write_inter(tmp_path, "Tiny", random_sequences(rng, 30, 40, 25), "reversed")
    # Days instead of positions: many ties, which must keep the order of the file.
    path = folder / "Tiny.inter"
    header, *lines = path.read_text().splitlines()
    columns = [line.split("\t") for line in lines]
    tied = [f"{user}\t{item}\t{int(time) // 3}" for user, item, time in columns]
    path.write_text("\n".join([header, *tied]) + "\n")
    config = make_config(tmp_path, "Tiny", MAX_ITEM_LIST_LENGTH=longest)
    for ours, theirs in zip(MultiModalDataset(config).build(), SequentialDataset(config).build()):
        a, b = ours.inter_feat.interaction, theirs.inter_feat.interaction
        assert list(a) == list(b)
        for field in a:
            torch.testing.assert_close(a[field], b[field], rtol=0, atol=0)


@pytest.mark.parametrize(
    "index",
    [
        np.array([4, 0, 4]), torch.tensor([3]), torch.tensor([], dtype=torch.int64), np.array([]),
        [5, 1], [], slice(2, 6), range(3), 7, np.arange(40) % 3 == 0,
    ],
)  # fmt: skip
def test_rows_are_recboles_whatever_asks_for_them(tmp_path, index):
    rng = np.random.default_rng(0)
    write_inter(tmp_path, "Tiny", random_sequences(rng, 4, 40, 25))
    config = make_config(tmp_path, "Tiny", MAX_ITEM_LIST_LENGTH=3)
    kinds = (MultiModalDataset, SequentialDataset)
    ours, theirs = (kind(config).build()[0].inter_feat[:40] for kind in kinds)
    assert isinstance(ours, PrefixRows)
    a, b = ours[index], theirs[index]
    assert len(a) == len(b) and list(a) == list(b)
    for field in b:
        torch.testing.assert_close(a[field], b[field], rtol=0, atol=0)
    # What a model or a loader of RecBole's adds to rows stays with them.
    for rows in (ours, theirs):
        rows.update(Interaction({"mark": torch.arange(len(rows))}))
        rows.sort(by=["item_id", "mark"])
        rows.drop("timestamp")
    assert list(ours[index]) == list(theirs[index])
    for field, values in theirs[index].to("cpu").interaction.items():
        torch.testing.assert_close(ours[index].to("cpu")[field], values, rtol=0, atol=0)


def test_rows_take_the_memory_of_indices(tmp_path):
    sequences = {f"u{n}": [f"i{i}" for i in range(100)] for n in range(30)}
    write_inter(tmp_path, "Long", sequences)
    parts = MultiModalDataset(make_config(tmp_path, "Long", MAX_ITEM_LIST_LENGTH=50)).build()
    histories = Histories.from_training_data(parts[0])
    assert histories.offsets.tolist() == list(range(0, 30 * 98 + 1, 98))
    for part in parts:
        rows = part.inter_feat
        held = [rows.target, rows.interaction.first, *rows.interaction.events.values()]
        assert sum(tensor.numel() for tensor in held) <= 5 * 100 * 30  # RecBole's: 100 * 100 * 30


def test_augmentation_of_other_columns_is_recboles(tmp_path):
    folder = tmp_path / "Tags"
    folder.mkdir()
    rows = "".join(f"u{n % 2}\ti{n}\t{n}\tx y{n}\n" for n in range(9))
    header = "user_id:token\titem_id:token\ttimestamp:float\ttags:token_seq\n"
    (folder / "Tags.inter").write_text(header + rows)
    columns = {"inter": ["user_id", "item_id", "timestamp", "tags"]}
    config = make_config(tmp_path, "Tags", load_col=columns)
    ours = MultiModalDataset(config).build()[0].inter_feat
    theirs = SequentialDataset(config).build()[0].inter_feat
    torch.testing.assert_close(ours["tags_list"], theirs["tags_list"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"order": "RO"}, "`eval_args` is .*Golden.*has to be 'TO'"),
        ({"split": {"LS": "test"}}, "`eval_args.split.LS` is 'test'; expected one of valid_and"),
        ({"split": {"LS": "test_only", "RS": [1, 1, 1]}}, "exactly one of `LS`"),
        ({"split": {"RS": [0.9, 0.1]}}, "three shares"),
        ({"split": {}}, "exactly one of `LS`"),
        ({"split": {"RS": [8, 1, 1]}, "group_by": "item"}, "expected user or none"),
    ],
)
def test_impossible_splits_are_refused(tmp_path, given, says):
    write_inter(tmp_path, "Golden", GOLDEN)
    with pytest.raises(UserError, match=says):
        split_of(tmp_path, eval_args=given)


@pytest.mark.parametrize("model", ["BBQRec", "SASRec"])
def test_events_without_times_are_refused(tmp_path, model):
    path = write_inter(tmp_path, "Golden", GOLDEN) / "Golden.inter"
    lines = [line.rpartition("\t")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"Golden\.inter.*user_id, item_id; expected.*timestamp"):
        split_of(tmp_path, model)
    write_inter(tmp_path, "Golden", GOLDEN)
    with pytest.raises(UserError, match="column when:float in its header .option `TIME_FIELD`"):
        split_of(tmp_path, model, TIME_FIELD="when")


def test_more_ranks_than_items_are_refused(tmp_path):
    write_inter(tmp_path, "Golden", GOLDEN)
    split_of(tmp_path, topk=[2, 5])
    with pytest.raises(UserError, match=r"`topk` is \[2, 6\]; Golden has 5 items"):
        split_of(tmp_path, topk=[2, 6])
    by_value = {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "uni2"}}
    split_of(tmp_path, topk=[6], **by_value)


@pytest.mark.parametrize(
    ("sequences", "longest", "most"),
    [
        (GOLDEN, 20, 1),  # pqrs, then t
        (GOLDEN, 3, 2),
        ({**GOLDEN, "ann": ["p", "q", "p", "q", "p"]}, 20, 2),  # now the longest is spq
    ],
)
def test_masked_history_leaves_enough_to_rank(tmp_path, sequences, longest, most):
    write_inter(tmp_path, "Golden", sequences)
    options = {"mask_history": True, "MAX_ITEM_LIST_LENGTH": longest}
    enough, more = ({"topk": [k], "valid_metric": f"NDCG@{k}"} for k in (most, most + 1))
    split_of(tmp_path, "BBQRec", **options, **enough, num_beams=30)
    with pytest.raises(UserError, match=f"`mask_history` is True.* is left {most}. Lower `topk`"):
        split_of(tmp_path, "BBQRec", **options, **more, num_beams=30)
    split_of(tmp_path, "SASRec", **options, **more)  # ranks what is masked last


def split_of(root, model="SASRec", **settings):
    """The data set Golden as a comparison splits it before its runs."""
    every = {"user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)"}
    overrides = {**every, "data_path": str(root), "topk": [1, 2], "valid_metric": "NDCG@2"}
    config = BBQRecConfig(model, "Golden", overrides={**overrides, "modalities": [], **settings})
    return planned_split_hash(config, root / "cache")


@pytest.mark.parametrize("dataset_class", [SequentialDataset, MultiModalDataset])
def test_leave_one_out_golden(tmp_path, dataset_class):
    """Last event: test. The one before: validation. The rest: one row per prefix."""
    write_inter(tmp_path, "Golden", GOLDEN)
    parts = dataset_class(make_config(tmp_path, "Golden")).build()
    found = []
    for part in parts:
        rows, item = part.inter_feat, part.field2id_token["item_id"]
        user = part.field2id_token["user_id"]
        lists = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist())
        history = ["".join(item[i] for i in line[:length]) for line, length in lists]
        triples = zip(rows["user_id"].tolist(), history, rows["item_id"].tolist())
        found.append(sorted((user[u], h, item[i]) for u, h, i in triples))
    train, valid, test = found
    # cid's two events give one training row; bob's three leave nothing for validation.
    assert train == [
        ("ann", "p", "q"), ("ann", "pq", "r"), ("bob", "q", "r"), ("cid", "t", "s"),
        ("dee", "s", "p"),
    ]  # fmt: skip
    assert valid == [("ann", "pqr", "s"), ("dee", "sp", "q")]
    assert test == [("ann", "pqrs", "t"), ("bob", "qr", "p"), ("dee", "spq", "t")]
