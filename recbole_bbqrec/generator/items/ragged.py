"""Groups of unequal size, laid end to end."""

from __future__ import annotations

import torch
from torch import Tensor


def expand(first: Tensor, counts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """List the members of every group.

    Group g is ``first[g] .. first[g] + counts[g] - 1``; both int64 [G]. Returns (owner, member),
    both int64 [E] with E the sum of counts, group after group. Without that ``total`` a device is
    asked for it.

    >>> expand(torch.tensor([10, 0, 5]), torch.tensor([2, 0, 3]))
    (tensor([0, 0, 2, 2, 2]), tensor([10, 11,  5,  6,  7]))
    """
    group = torch.arange(counts.numel(), device=counts.device)
    owner = torch.repeat_interleave(group, counts, output_size=total)  # [E]
    shift = first - (counts.cumsum(0) - counts)  # [G]
    member = shift.index_select(0, owner)  # a third of the time that shift[owner] takes
    return owner, member.add_(torch.arange(owner.numel(), device=counts.device))


def chunks(sizes: Tensor, budget: int) -> list[slice]:
    """Cut consecutive entries into runs of about ``budget``.

    ``sizes``: int64 [G], each at least 1. A run exceeds the budget by less than its first entry.

    >>> chunks(torch.tensor([3, 1, 4, 2]), 5)
    [slice(0, 2, None), slice(2, 4, None)]
    """
    run = (sizes.cumsum(0) - 1) // budget  # [G]
    cuts = (run.diff().nonzero().squeeze(1) + 1).tolist()
    return [slice(i, j) for i, j in zip([0] + cuts, cuts + [sizes.numel()])]


def group_logsumexp(values: Tensor, owner: Tensor, n_groups: int) -> Tensor:
    """Compute the log-sum-exp of each group: ``values`` [E], ``owner`` int64 [E] -> [n_groups].

    Groups without members give -inf (and no usable gradient).
    """
    peak = values.new_full((n_groups,), -torch.inf)
    peak.scatter_reduce_(0, owner, values.detach(), "amax")
    total = values.new_zeros(n_groups).index_add_(0, owner, (values - peak[owner]).exp_())
    return total.log() + peak
