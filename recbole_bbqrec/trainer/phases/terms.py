"""Running means of named loss terms, kept on the device until they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class TermMeans:
    """Sums detached scalars without synchronising with the device."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def add(self, terms: Mapping[str, torch.Tensor]) -> None:
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps so far; synchronises once."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())) / self._steps
        return dict(zip(self._sums, values.tolist()))
