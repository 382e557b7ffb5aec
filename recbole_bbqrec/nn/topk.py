"""The largest values of long rows, selected in two steps.

``topk`` of a row takes time for every value. Here rows are cut into groups, and only the k groups
with the largest maxima are searched: each value outside them is beaten by k maxima.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1 << 15  # for fewer values, grouping costs more than it saves


def best_of_rows(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k largest of each row: ``values`` [B, n] -> values and places, [B, k], unordered.

    ``k`` is at most n. Any of equal values may be selected.
    """
    size = _group_size(values.numel(), values.shape[1], k)
    if size < 2:
        top = values.topk(k, dim=1, sorted=False)
        return top.values, top.indices
    n_groups = values.shape[1] // size
    grouped = values[:, : size * n_groups].unflatten(1, (size, n_groups))  # [B, size, G]
    places = _places(grouped.amax(1), k, size, values.shape[1])
    return _chosen(values.gather(1, places), places, k)


def best_of_columns(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Do :func:`best_of_rows` for ``values`` [n, B], without laying out all of them by row."""
    size = _group_size(values.numel(), len(values), k)
    if size < 2:
        return best_of_rows(values.t().contiguous(), k)
    n_groups = len(values) // size
    grouped = values[: size * n_groups].unflatten(0, (size, n_groups))  # [size, G, B]
    places = _places(grouped.amax(0).t().contiguous(), k, size, len(values))
    column = torch.arange(values.shape[1], device=values.device)[:, None]
    cells = (places * values.shape[1] + column).flatten()
    return _chosen(values.flatten().index_select(0, cells).view_as(places), places, k)


def _group_size(n_values: int, n: int, k: int) -> int:
    """Return the size that leaves least to search: n / size maxima and k * size values."""
    return 1 if n_values < _SMALL else int((n / k) ** 0.5)


def _places(maxima: Tensor, k: int, size: int, n: int) -> Tensor:
    """List the places to search: ``maxima`` [B, G] of places g, g + G, .. -> int64 [B, P]."""
    groups = maxima.topk(k, dim=1, sorted=False).indices  # [B, k]
    step = torch.arange(0, size * maxima.shape[1], maxima.shape[1], device=groups.device)
    places = (groups.unsqueeze(1) + step[:, None]).flatten(1)  # [B, size * k]
    rest = torch.arange(size * maxima.shape[1], n, device=groups.device)
    return torch.cat([places, rest.expand(len(places), -1)], dim=1)


def _chosen(values: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top = values.topk(k, dim=1, sorted=False)
    return top.values, places.gather(1, top.indices)
