"""The batch of a training step whose loss was NaN, kept beside the run to be repeated.

A safetensors file: ``batch/<name>``, ``weights/<name>`` before the step, and ``random``, the state
of torch's random numbers; phase, epoch and model in its header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from recbole_bbqrec.atomic import atomic_path
from recbole_bbqrec.reading import reading

_BATCH, _WEIGHTS, _RANDOM = "batch/", "weights/", "random"


@dataclass(frozen=True)
class NanBatch:
    """One training step before it was taken.

    Attributes:
        phase: ``tokenize``, ``generate`` or ``train``.
        epoch: from 0.
        batch: what the loss reads, by name.
        weights: the network's state.
        random: state of torch's random numbers on the CPU, uint8.
    """

    phase: str
    epoch: int
    batch: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    random: Tensor

    def save(self, path: Path) -> None:
        """Write the file, atomically."""
        tensors = {
            **{f"{_BATCH}{name}": value for name, value in self.batch.items()},
            **{f"{_WEIGHTS}{name}": value for name, value in self.weights.items()},
            _RANDOM: self.random,
        }
        apart = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        with atomic_path(path) as temporary:
            save_file(apart, temporary, {"phase": self.phase, "epoch": str(self.epoch)})

    @classmethod
    def load(cls, path: str | Path) -> NanBatch:
        """Read a file that :meth:`save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another kind.
        """
        remedy = "Give the nan_batch.safetensors in the directory of a run."
        with (
            reading(path, "the batch of a training step", remedy),
            safe_open(str(path), framework="pt") as file,
        ):
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            batch, weights = (
                {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
                for start in (_BATCH, _WEIGHTS)
            )
            epoch = int(facts["epoch"])
            return cls(facts["phase"], epoch, batch, weights, tensors[_RANDOM])
