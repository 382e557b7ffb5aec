"""Whether the data at hand are those that a run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig


def data_identity(dataset: ItemDataset, split_hash: str) -> dict[str, Any]:
    """What a run's checkpoints name its data by: ``split_hash``, and ``features`` by modality."""
    names = getattr(dataset, "modalities", ())
    features = {name: {"fingerprint": dataset.item_features(name).fingerprint} for name in names}
    return {"split_hash": split_hash, "features": features}


def check_same_data(
    stored: Mapping[str, Any],
    found: Mapping[str, Any],
    run: str | Path,
    config: RunConfig,
    *or_: str,
) -> None:
    """Compare what a run's file says of its data, as far as it does, with those ``found`` now.

    A model's weights belong to internal ids: with other data they would be those of other items.
    ``or_`` is what else the user can do.

    Raises:
        UserError: they differ.
    """
    name, place = config["dataset"], config["data_path"]
    ways = ("Restore the data", "say where they are with --data_path=DIRECTORY", *or_)
    remedy = ", or ".join(ways) + "."
    used, now = stored.get("split_hash"), found["split_hash"]
    if used and used != now:
        raise UserError(
            f"The run at {run} used the split {used} of {name}; the data in {place} have the "
            f"split {now}. {remedy}"
        )
    for modality, feature in (stored.get("features") or {}).items():
        other = found["features"].get(modality, {"fingerprint": "absent"})
        if other["fingerprint"] != feature["fingerprint"]:
            raise UserError(
                f"The run at {run} used {modality} features {feature['fingerprint']} of {name}; "
                f"those in {place} are {other['fingerprint']}. {remedy}"
            )
