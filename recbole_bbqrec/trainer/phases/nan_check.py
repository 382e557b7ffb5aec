"""A look at the loss of every training step, while its batch and its weights are at hand.

On a CPU and in one process alone: on a GPU it would make the host wait for every step, and several
processes must stop together. There a NaN is found at the end of the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_bbqrec.distributed.group import running
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.run_files.nan_batch import NanBatch


class NanCheck:
    """Keeps the batch of a step whose loss is NaN.

    Args:
        files: the run; None keeps nothing.
        phase: its name in the file.
        device: the run's.
    """

    def __init__(self, files: RunFiles | None, phase: str, device: torch.device) -> None:
        self._files, self._phase = files, phase
        self._looks = torch.device(device).type == "cpu" and not running()
        self._random: Tensor | None = None

    def before(self) -> None:
        """Note the random numbers; call before the loss is computed."""
        if self._looks:
            self._random = torch.get_rng_state()

    def after(
        self, loss: Tensor, batch: Mapping[str, Tensor], network: nn.Module, epoch: int
    ) -> str | None:
        """Return None; or if the loss, a scalar, is NaN, a sentence that says where the batch is.

        Call before the step is taken.
        """
        if not self._looks or not is_nan(loss):
            return None
        if self._files is None or self._random is None:
            return ""
        path = self._files.nan_batch
        NanBatch(self._phase, epoch, batch, network.state_dict(), self._random).save(path)
        return f" The batch and the weights before it are in {path} (docs/reliability.md)."


def watched(
    loss_of: Callable[[Any], Any],
    check: NanCheck,
    network: nn.Module,
    epoch: int,
    error: Callable[[str], Exception],
) -> Callable[[Any], Any]:
    """Return ``loss_of``, the loss of a batch of RecBole's or ours, with a check of each loss.

    ``error`` makes the exception from the sentence that says where the batch is.
    """

    def checked(batch: Any) -> Any:
        check.before()
        losses = loss_of(batch)
        total: Any = sum(losses) if isinstance(losses, tuple) else losses
        read = batch._asdict() if hasattr(batch, "_asdict") else batch.interaction
        kept = check.after(total, read, network, epoch)
        if kept is not None:
            raise error(kept)
        return losses

    return checked


def is_nan(loss: Tensor) -> bool:
    return bool(loss.detach().isnan())
