"""The items' features as phase two reads them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from recbole_bbqrec.model.parts.item_features import item_features
from recbole_bbqrec.model.settings import FeatureSettings
from tests.support.generator import histories, small_catalogue, small_generator


def data_set(**modalities: tuple[Tensor, list[int]]) -> SimpleNamespace:
    """Stands for a data set: matrices [n_items, dim] and the items that lack the modality."""

    def features(name: str) -> SimpleNamespace:
        matrix, absent = modalities[name]
        present = torch.ones(len(matrix), dtype=torch.bool)
        present[[0, *absent]] = False
        return SimpleNamespace(matrix=matrix * present[:, None], present=present)

    return SimpleNamespace(item_features=features)


def test_modalities_are_brought_to_one_scale() -> None:
    torch.manual_seed(0)
    data = data_set(text=(torch.randn(40, 6) * 3 + 1, [5]), image=(torch.rand(40, 9) * 90, [7, 8]))
    text, image = item_features(data, ("text", "image"), FeatureSettings("zscore", 20, False))
    features = torch.cat([text, image], dim=1)
    assert text.shape == (40, 6) and image.shape == (40, 9)
    assert not features[0].any()
    assert not features[5, :6].any() and features[5, 6:].any()
    assert not features[[7, 8], 6:].any() and features[7, :6].any()
    for part, count in ((features[:, :6], 38), (features[:, 6:], 37)):
        assert float(part.square().sum() / count / part.shape[1]) == pytest.approx(1, abs=1e-5)
    assert item_features(data, (), FeatureSettings("zscore", 20, False)) == []


def test_a_wide_modality_is_cut_to_its_principal_components() -> None:
    torch.manual_seed(1)
    wide = (torch.randn(60, 3) @ torch.randn(3, 30) + 0.01 * torch.randn(60, 30)).half()
    data = data_set(image=(wide, [4]))
    (cut,) = item_features(data, ("image",), FeatureSettings("none", 3, False))
    assert cut.shape == (60, 3) and not cut[4].any()
    rows = [i for i in range(1, 60) if i != 4]
    known = wide[rows].double().numpy()
    reference = torch.from_numpy(PCA(3, svd_solver="full").fit_transform(known)).float()
    reference = reference / reference.square().mean().sqrt()
    # Components are known up to their sign.
    torch.testing.assert_close(cut[rows].abs(), reference.abs(), atol=1e-3, rtol=1e-3)
    (again,) = item_features(data, ("image",), FeatureSettings("none", 3, False))
    assert torch.equal(cut, again)


def test_whitening_makes_principal_components_equally_wide() -> None:
    torch.manual_seed(3)
    rows = torch.randn(300, 8).double() @ torch.diag(2.0 ** -torch.arange(8.0)).double()
    rows[:, 7] = rows[:, 0]  # a direction without any variance
    data = data_set(text=(torch.cat([rows.new_zeros(1, 8), rows]).float(), [9]))
    (white,) = item_features(data, ("text",), FeatureSettings("none", 20, True))
    assert white.shape == (301, 8) and not white[[0, 9]].any()
    known = rows[[i for i in range(300) if i != 8]]
    known = known - known.mean(0)
    variance, axes = torch.linalg.eigh(known.T @ known / (len(known) - 1))
    expected = known @ axes / (variance + 0.01 * variance.mean()).sqrt()  # [299, 8]
    expected = expected / expected.square().mean().sqrt()
    got = white[white.any(1)].double()
    # The components are known up to their sign and order: compare the items' products.
    torch.testing.assert_close(got @ got.T, expected @ expected.T, atol=1e-4, rtol=1e-4)
    widths = got.std(0)
    assert widths[:4].max() < 1.2 * widths[:4].min() and widths[7] < 1e-3
    assert torch.equal(white, item_features(data, ("text",), FeatureSettings("none", 20, True))[0])


@pytest.mark.parametrize("absent", ([2, 3, 4], [3, 4], []))
def test_features_that_do_not_differ_are_no_error(absent: list[int]) -> None:
    data = data_set(text=(torch.ones(5, 3) * 2, absent))
    for scaling in ("zscore", "none"):
        (white,) = item_features(data, ("text",), FeatureSettings(scaling, 2, True))
        assert bool(torch.isfinite(white).all())


def test_what_a_network_with_features_needs() -> None:
    catalogue = small_catalogue()
    generator = small_generator(catalogue, feature_dim=4)
    with pytest.raises(ValueError, match="features"):
        generator.encode(catalogue, histories(catalogue, [2], 2))


def test_predictions_follow_the_features() -> None:
    torch.manual_seed(2)
    catalogue = small_catalogue(feature_dim=4)
    generator = small_generator(catalogue, feature_dim=4)
    items = histories(catalogue, [3], 3)
    before = generator.encode(catalogue, items).states
    assert catalogue.features is not None
    catalogue.features[int(items[0, 1])] += 1
    after = generator.encode(catalogue, items).states
    changed = (before != after).any(2).any(1)
    assert changed.tolist() == [False, True, True]  # causal: from the changed item on
