"""Options in a run of several processes: what they change, and what they must allow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from recbole.config import Config

from recbole_bbqrec.distributed import group
from recbole_bbqrec.errors import UserError


class ConfigOfProcess(Config):
    """RecBole's Config, whose device and output are those of one process among several."""

    final_config_dict: dict[str, Any]

    def _init_device(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        super()._init_device()
        self.final_config_dict.update(of_this_process(self.final_config_dict, visible))


def of_this_process(values: Mapping[str, Any], visible: str | None) -> dict[str, Any]:
    """Return the values of this process that are not those of a process alone.

    Each has a GPU of its own among the ``visible`` ones, CUDA_VISIBLE_DEVICES before RecBole set it
    to `gpu_id`. All but the first log errors alone and show nothing.
    """
    if not group.running():
        return {}
    if visible is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    own: dict[str, Any] = {"device": group.device_of(values["device"])}
    if not group.is_main():
        own.update(state="ERROR", show_progress=False, log_wandb=False)
    return own


def check_shareable(config: Any, n_histories: int) -> None:
    """Refuse more processes than work, and what cannot be shared among several.

    Raises:
        UserError: there are fewer training histories, or rows of a batch, than processes, or an
            option is for one process.
    """
    size = group.world_size()
    if size == 1:
        return
    counts = {"train_batch_size": config["train_batch_size"], "training histories": n_histories}
    if "tokenizer_batch_size" in config:
        counts["tokenizer_batch_size"] = config["tokenizer_batch_size"]
    for name, count in counts.items():
        if count < size:
            raise UserError(
                f"The run has {size} processes, but {count} {name}; expected at least as many. "
                "Start fewer with torchrun --nproc_per_node."
            )
    if config["enable_scaler"]:
        raise UserError(
            "Option `enable_scaler` is True; its gradient scaler skips steps in one process alone. "
            "Leave it out, or start one process."
        )
