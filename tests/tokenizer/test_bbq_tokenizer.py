"""BBQRec's phase-one network: representations, losses, variants, training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.nn.standardizer import Standardizer
from recbole_bbqrec.tokenizer.base import PhaseOneNetwork
from recbole_bbqrec.tokenizer.bbq.settings import BBQSettings
from recbole_bbqrec.tokenizer.bbq.tokenizer import BBQTokenizer
from recbole_bbqrec.tokenizer.collisions import count_collisions, resolve_collisions

N_ITEMS = 61
SMALL = BBQSettings(
    levels=3, codebook_size=8, codebook_dim=6, encoder_hidden=(16, 12), mim_hidden=10,
    sequence_hidden_size=8, sequence_layers=1, sequence_dropout=0.0, max_history=6,
)  # fmt: skip


def features(n_items: int = N_ITEMS) -> dict[str, tuple[Tensor, Tensor]]:
    """Text (float32, 9 wide) and image (float16, 14 wide); some items lack one of them."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(n_items, 9, generator=generator) * 3 + 1
    image = (torch.randn(n_items, 14, generator=generator) * 0.2).half()
    with_text, with_image = torch.ones(2, n_items, dtype=torch.bool)
    with_text[[0, 4, 5]], with_image[[0, 5, 7, 9]] = False, False
    text[~with_text], image[~with_image] = 0, 0
    return {"text": (text, with_text), "image": (image, with_image)}


def trained() -> Tensor:
    mask = torch.ones(N_ITEMS, dtype=torch.bool)
    mask[[0, 7, 60]] = False
    return mask


def make(seed: int = 0, modalities: str = "text image", **changes: Any) -> BBQTokenizer:
    torch.manual_seed(seed)
    chosen = {name: features()[name] for name in modalities.split()}
    return BBQTokenizer(replace(SMALL, **changes), chosen, N_ITEMS, trained())


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    events = torch.randint(1, N_ITEMS - 1, (12, 7), generator=generator)
    events[events == 7] = 8  # an untrained item
    sequences, targets = events[:, :-1].clone(), events[:, 1:].clone()
    sequences[:4, 3:], targets[:4, 2:] = 0, 0
    return torch.unique(sequences[sequences > 0]), sequences, targets


# ---- scaling ---------------------------------------------------------------------------


def test_standardizer_uses_present_rows_only() -> None:
    matrix, present = features()["image"]
    matrix = matrix.clone()
    matrix[present, 3] = 0.7  # constant
    scaled = Standardizer(matrix, present)(matrix[present])
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled.mean(0), torch.zeros(14), atol=1e-4, rtol=0)
    expected = torch.ones(14)
    expected[3] = 0
    torch.testing.assert_close(scaled.std(0, unbiased=False), expected, atol=1e-3, rtol=0)
    rare = torch.zeros(1000, 1)
    rare[5] = 1  # would be 31.6 deviations away
    assert float(Standardizer(rare, torch.ones(1000, dtype=torch.bool))(rare).max()) == 10


def test_other_scalings() -> None:
    matrix, present = features()["text"]
    rows = Standardizer(matrix, present, "l2")(matrix[present])
    torch.testing.assert_close(rows.norm(dim=-1), torch.full((len(rows),), 3.0))
    assert torch.equal(Standardizer(matrix, present, "none")(matrix), matrix)
    with pytest.raises(ValueError, match="feature_scaling"):
        Standardizer(matrix, present, "minmax")


# ---- representations -------------------------------------------------------------------


def test_signals_have_one_scale_and_missing_ones_are_learned_vectors() -> None:
    net = make()
    items = torch.arange(1, N_ITEMS)
    z, zbar = net.encode(items)
    assert net.signals == ("id", "text", "image") and z.shape == (60, 3, 6)
    assert {name: tuple(value.shape) for name, value in zbar.items()} == {
        "text": (60, 6), "image": (60, 6),
    }  # fmt: skip
    torch.testing.assert_close(z.std(-1, unbiased=False), torch.ones(60, 3), atol=0.03, rtol=0)
    missing = F.layer_norm(net.encoder.missing, (6,))
    absent = {"id": [7, 60], "text": [4, 5], "image": [5, 7, 9]}
    for signal, name in enumerate(net.signals):
        same = (z[:, signal] == missing[signal]).all(-1)
        assert items[same].tolist() == absent[name]


def test_features_keep_their_dtype_and_stay_out_of_the_state() -> None:
    net = make()
    assert net.encoder.tower("image").matrix.dtype == torch.float16
    assert not [key for key in net.state_dict() if key.endswith(("matrix", "present"))]
    other = make(seed=1)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.item_vectors(), net.item_vectors())


def test_missing_rows_do_not_influence_reconstruction_or_mim() -> None:
    """Changing what stands in the place of missing features changes nothing."""
    items, sequences, targets = batch()
    items = torch.unique(torch.cat([items, torch.tensor([4, 5, 9])]))
    net, spoiled = make(), make()
    for name in ("text", "image"):
        tower = spoiled.encoder.tower(name)
        _, present = features()[name]
        tower.matrix[~present] = 50.0
    for model in (net, spoiled):
        model.initialise_codebooks(seed=0)
    ours, theirs = (model.losses(items, sequences, targets) for model in (net, spoiled))
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key])
    for model in (net, spoiled):
        model.estimator_loss(model.mim_pairs(items)).backward()
    for one, two in zip(net.estimator_parameters(), spoiled.estimator_parameters()):
        torch.testing.assert_close(one.grad, two.grad)
    # And a batch of nothing but missing rows has no such loss at all.
    lone = net.losses(torch.tensor([5]), sequences * 0, targets * 0)
    for key in ("reconstruction/text", "reconstruction/image", "mim/text", "commitment/image"):
        assert float(lone[key].detach()) == 0
    assert float(lone["contrastive"].detach()) == 0


# ---- losses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduction", "bound"), [("mean", "mean"), ("sum", "mean"), ("sum", "sum")]
)
def test_losses_equal_the_equations(reduction: str, bound: str) -> None:
    """Eqs. 3, 8, 9, 12, 13 written out item by item on the network's own representations."""
    weights = {"id": 0.1, "text": 0.2, "image": 0.3}
    net = make(
        recon_reduction=reduction, mim_reduction=bound, commitment_weight=weights,
        contrastive_weight=0.7, mim_weight=0.4, temperature=0.2,
    )  # fmt: skip
    net.initialise_codebooks(seed=0)
    net.eval()
    items, sequences, targets = batch()
    items = torch.cat([items[:20], torch.tensor([4, 5, 60])]).unique()
    losses = net.losses(items, sequences, targets)
    size = {"text": 9, "image": 14, "code": 6} if reduction == "mean" else dict.fromkeys(
        ("text", "image", "code"), 1
    )  # fmt: skip
    everything = torch.arange(N_ITEMS)
    with torch.no_grad():
        z, zbar = net.encode(everything)
        output = net.quantizer(z)
        total = torch.tensor(0.0)
        for signal, name in enumerate(net.signals):
            present = trained() if name == "id" else features()[name][1]
            own = items[present[items]]
            residual, rq = z[own, signal], torch.tensor(0.0)
            for level in range(3):
                code = net.quantizer.codebooks[0, level, output.codes[own, level, signal]]
                rq = rq + (residual - code).pow(2).sum(-1).mean()
                residual = residual - code
            rq = rq / size["code"]
            torch.testing.assert_close(losses[f"codebook/{name}"], rq)
            torch.testing.assert_close(losses[f"commitment/{name}"], rq)
            total = total + rq + weights[name] * rq
            if name == "id":
                continue
            tower = net.encoder.tower(name)
            decoded = tower.decoder(torch.cat([output.quantized[own, signal], zbar[name][own]], 1))
            error = (decoded - tower.inputs(own)).pow(2).sum(-1).mean() / size[name]
            torch.testing.assert_close(losses[f"reconstruction/{name}"], error)
            given, specific = z[own, signal], zbar[name][own]
            mean, log_variance = net._estimator(name)(given)
            squared = (specific[:, None] - mean) ** 2  # j, i
            density = -0.5 * squared * torch.exp(-log_variance)
            mim = (density.diagonal().T - density.mean(0)).sum(-1).mean()
            mim = mim / (specific.shape[1] if bound == "mean" else 1)
            torch.testing.assert_close(losses[f"mim/{name}"], mim)
            total = total + error + 0.4 * mim
        vectors = output.quantized.flatten(1)
        vectors[0] = 0
        states = net.sequence_states(sequences, vectors)[targets > 0]
        wanted = targets[targets > 0]
        distinct = wanted.unique()
        logits = torch.cosine_similarity(states[:, None], vectors[distinct][None], dim=-1) / 0.2
        label = (wanted[:, None] == distinct).int().argmax(1)
        contrastive = F.cross_entropy(logits, label)
        torch.testing.assert_close(losses["contrastive"], contrastive)
    torch.testing.assert_close(losses["total"], total + 0.7 * contrastive)
    assert set(losses) == {"total", "contrastive"} | {
        f"{kind}/{name}" for kind in ("reconstruction", "mim") for name in ("text", "image")
    } | {f"{kind}/{name}" for kind in ("codebook", "commitment") for name in net.signals}


def test_warm_up_passes_representations_through() -> None:
    net = make()
    items, sequences, targets = batch()
    losses = net.losses(items, sequences, targets)
    idle = [value for key, value in losses.items() if key.startswith(("codebook/", "commitment/"))]
    assert len(idle) == 6 and all(float(value.detach()) == 0 for value in idle)
    assert not bool(net.quantizing) and net.end_of_epoch() == {}
    z, _ = net.encode(torch.arange(1, N_ITEMS))
    vectors = net.item_vectors()
    torch.testing.assert_close(vectors[1:], z.flatten(1).detach())
    assert vectors.shape == (N_ITEMS, 18) and float(vectors[0].abs().sum()) == 0
    with pytest.raises(ValueError, match="initialise_codebooks"):
        net.tokenize()


def test_gradients_reach_every_main_parameter_and_no_estimator() -> None:
    net = make()
    net.initialise_codebooks(seed=0)
    items, sequences, targets = batch()
    sequences[0, 0] = 7  # has no ID vector and no image: the learned ones must learn
    sequences[1, 0] = 4  # has no text
    net.losses(items, sequences, targets)["total"].backward()
    for name, parameter in net.named_parameters():
        if name.startswith("estimators"):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    missing, embedding = gradients["encoder.missing"], gradients["encoder.id_embedding.weight"]
    assert missing is not None and (missing.abs().sum(-1) > 0).all()
    assert embedding is not None and float(embedding[[0, 7, 60]].abs().sum()) == 0


def test_parameter_groups_are_disjoint_and_complete() -> None:
    net = make()
    main, estimators = list(net.main_parameters()), list(net.estimator_parameters())
    ids = [id(parameter) for parameter in main + estimators]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in net.parameters()}
    assert {id(p) for p in estimators} == {id(p) for p in net.estimators.parameters()}


def test_mim_pairs_are_detached_and_the_estimator_learns() -> None:
    net = make()
    pairs = net.mim_pairs(torch.arange(1, N_ITEMS))
    z, zbar = net.encode(torch.arange(1, N_ITEMS))
    assert torch.equal(pairs["image"][0], z[:, 2]) and torch.equal(pairs["image"][1], zbar["image"])
    assert torch.equal(pairs["image"][2], features()["image"][1][1:])
    assert not any(part.requires_grad for pair in pairs.values() for part in pair)
    optimizer = torch.optim.Adam(net.estimator_parameters(), lr=0.01)
    before = net.estimator_loss(pairs)
    for _ in range(30):
        optimizer.zero_grad()
        net.estimator_loss(pairs).backward()
        optimizer.step()
    assert float(net.estimator_loss(pairs).detach()) < float(before.detach()) - 0.1


@pytest.mark.parametrize("sequence_encoder", ["sasrec", "srgnn"])
def test_bfloat16_autocast_stays_close(sequence_encoder: str) -> None:
    net = make(sequence_encoder=sequence_encoder)
    items, sequences, targets = batch()
    plain = net.losses(items, sequences, targets)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net.losses(items, sequences, targets)
    mixed["total"].backward()
    for key, value in mixed.items():
        assert value.dtype == torch.float32, key
        torch.testing.assert_close(value, plain[key], atol=0.03, rtol=0.03)


# ---- variants --------------------------------------------------------------------------


def parts(net: BBQTokenizer) -> set[str]:
    """Groups of parameters: id, and per modality behaviour, specific, decoder, estimator."""
    found = set()
    for name, _ in net.named_parameters():
        pieces = name.split(".")
        if pieces[0] == "estimators":
            found.add(f"{pieces[1]}/estimator")
        elif pieces[1] == "towers":
            found.add(f"{pieces[2]}/{pieces[3]}")
        else:
            found.add(pieces[1] if pieces[0] == "encoder" else pieces[0])
    return found


FULL = {"id_embedding", "missing", "quantizer", "sequence_encoder"} | {
    f"{modality}/{part}" for modality in ("text", "image")
    for part in ("behaviour", "specific", "decoder", "estimator")
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({}, ()),
        ({"use_mim": False}, ("specific", "estimator")),
        ({"use_contrastive": False, "use_id": False}, ("id_embedding", "sequence_encoder")),
        ({"share_codebook": False}, ()),
        ({"use_id": False}, ("id_embedding",)),
        ({"modalities": "image"}, ("text/",)),
        ({"modalities": "text"}, ("image/",)),
        ({"modalities": ""}, ("text/", "image/")),
        ({"sequence_encoder": "srgnn"}, ()),
    ],
)
def test_variants_lack_exactly_their_parts(changes: dict[str, Any], lacks: tuple[str, ...]) -> None:
    net = make(**changes)
    assert parts(net) == {part for part in FULL if not any(word in part for word in lacks)}
    items, sequences, targets = batch()
    net.initialise_codebooks(seed=0)
    losses = net.losses(items, sequences, targets)
    losses["total"].backward()
    present = {key.split("/")[0] for key in losses}
    assert ("mim" in present) == bool("specific" not in lacks and net.modalities)
    assert ("contrastive" in present) == ("sequence_encoder" not in lacks)
    n_signals = len(net.signals)
    sets = n_signals if changes.get("share_codebook") is False else 1
    assert net.quantizer.codebooks.shape == (sets, 3, 8, 6)
    width = 6 if changes.get("use_mim") is False else 12
    for name in net.modalities:
        assert net.encoder.tower(name).decoder.layers[0].in_features == width
    tokens = net.tokenize()
    assert tokens.codes.shape == (N_ITEMS, 3, n_signals)
    assert tokens.vectors.shape == (N_ITEMS, 6 * n_signals)
    if not net.has_sequence_encoder:
        with pytest.raises(ValueError, match="sequence encoder"):
            net.sequence_states(sequences, tokens.vectors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 0}, "levels"),
        ({"temperature": 0.0}, "temperature"),
        ({"dropout": 1.0}, "dropout"),
        ({"sequence_encoder": "gru"}, "sequence_encoder"),
        ({"recon_reduction": "max"}, "recon_reduction"),
        ({"sequence_hidden_size": 9}, "sequence_heads"),
        ({"mim_weight": -1.0}, "mim_weight"),
        ({"commitment_weight": {"id": -0.1}}, "commitment_weight"),
        ({"commitment_weight": {"id": 0.1, "text": 0.1}}, "'image'"),
        ({"use_contrastive": False}, "use_id"),
        ({"use_id": False, "modalities": ""}, "no signal"),
    ],
)
def test_unusable_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("name", ["id", "a.b", ""])
def test_unusable_features_are_refused(name: str) -> None:
    matrix, present = features()["text"]
    with pytest.raises(ValueError, match="cannot be called"):
        BBQTokenizer(SMALL, {name: (matrix, present)}, N_ITEMS, trained())
    with pytest.raises(ValueError, match="expected a matrix"):
        BBQTokenizer(SMALL, {"text": (matrix[1:], present)}, N_ITEMS, trained())
    with pytest.raises(ValueError, match="trained_items"):
        BBQTokenizer(SMALL, {"text": (matrix, present)}, N_ITEMS, trained()[1:])


# ---- codebooks, tokenization, training -------------------------------------------------


def test_tokenization_is_consistent_and_a_reload_does_not_initialise_again() -> None:
    net = make(dropout=0.3)
    net.initialise_codebooks(seed=1)
    tokens = net.tokenize()
    assert net.training and tokens.codes.dtype == torch.int64
    assert int(net.quantizer.usage.sum()) == 0  # looking is not using
    books = tokens.codebooks[0]
    for signal in range(3):
        chosen = torch.stack([books[level, tokens.codes[1:, level, signal]] for level in range(3)])
        torch.testing.assert_close(
            tokens.vectors[1:, 6 * signal : 6 * signal + 6], chosen.sum(0), atol=1e-5, rtol=0
        )
    assert float(tokens.vectors[0].abs().sum()) == 0 and int(tokens.codes[0].sum()) == 0
    torch.testing.assert_close(net.item_vectors(), tokens.vectors)
    items = torch.tensor([3, 60, 9])
    distances = tokens.last_level_distances(items)
    assert torch.equal(distances.argmin(-1), tokens.codes[items, -1])
    gap = tokens.last_residuals[60, 1] - books[2, 5]
    torch.testing.assert_close(distances[1, 1, 5], gap.pow(2).sum())
    reloaded = make(seed=5)
    reloaded.load_state_dict(net.state_dict())
    assert bool(reloaded.quantizing) and bool(reloaded.quantizer.initialised)
    assert torch.equal(reloaded.tokenize().codes, tokens.codes)


def test_distances_with_separate_codebooks() -> None:
    net = make(share_codebook=False)
    net.initialise_codebooks(seed=1)
    tokens = net.tokenize()
    items = torch.arange(1, N_ITEMS)
    assert torch.equal(tokens.last_level_distances(items).argmin(-1), tokens.codes[1:, -1])


def with_a_dead_code() -> BBQTokenizer:
    """A network whose code 2 of the second level was chosen by no item of the epoch."""
    net: BBQTokenizer = make()
    net.initialise_codebooks(seed=0)
    with torch.no_grad():
        net.quantizer.codebooks[0, 1, 2] = 1e3
    net.losses(*batch())
    return net


def test_the_end_of_an_epoch_reports_and_the_next_start_restarts() -> None:
    net = with_a_dead_code()
    before = net.quantizer.codebooks.detach().clone()
    stats = net.end_of_epoch()
    assert stats["dead/level2"] >= 1
    # The state that validation judges, and that may be kept, has trained codes alone.
    assert torch.equal(net.quantizer.codebooks.detach(), before)
    net.start_of_epoch(torch.Generator().manual_seed(0))
    assert float(net.quantizer.codebooks[0, 1, 2].detach().abs().max()) < 100
    for level in (1, 2, 3):
        for signal in net.signals:
            assert 0 < stats[f"utilisation/level{level}/{signal}"] <= 1
            assert 1 <= stats[f"perplexity/level{level}/{signal}"] <= 8
    assert int(net.quantizer.usage.sum()) == 0


def train(seed: int) -> tuple[list[float], BBQTokenizer, dict[str, float]]:
    """Two epochs' worth of warm-up, then quantized training, on data with structure."""
    net: BBQTokenizer = make(seed=seed)
    network: PhaseOneNetwork = net  # what the trainer relies on
    main = torch.optim.Adam(network.main_parameters(), lr=3e-3)
    estimator = torch.optim.Adam(network.estimator_parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    totals: list[float] = []
    stats: dict[str, float] = {}
    everything = torch.arange(1, N_ITEMS)
    for epoch in range(14):
        network.start_of_epoch(generator)
        if epoch == 2:
            network.initialise_codebooks(seed)
        for _ in range(10):
            start = torch.randint(1, 50, (16, 1), generator=generator)
            events = (start + 5 * torch.arange(6)) % 50 + 1  # each item has one successor
            events[events == 7] = 57
            for _inner in range(2):
                estimator.zero_grad()
                network.estimator_loss(network.mim_pairs(everything)).backward()
                estimator.step()
            main.zero_grad()
            losses = network.losses(everything, events[:, :-1], events[:, 1:])
            losses["total"].backward()
            main.step()
            if epoch >= 2:
                totals.append(float(losses["total"].detach()))
        stats = network.end_of_epoch() or stats
    return totals, net, stats


@pytest.mark.slow
def test_training_reduces_the_loss_uses_the_codes_and_is_reproducible() -> None:
    totals, net, stats = train(seed=0)
    assert sum(totals[-5:]) < 0.75 * sum(totals[:5])
    tokens = net.tokenize()
    for level in range(3):
        assert len(tokens.codes[1:, level].unique()) > 4  # of 8
        assert max(stats[f"utilisation/level{level + 1}/{name}"] for name in net.signals) > 0.5
    again, twin, _ = train(seed=0)
    assert again == totals and torch.equal(twin.tokenize().codes, tokens.codes)
    unique = resolve_collisions(tokens.codes, tokens.last_level_distances)
    assert count_collisions(unique).items == 0
