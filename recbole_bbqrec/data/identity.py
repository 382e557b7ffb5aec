"""Identity of a run's data, and the check that present data are those it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig


def data_identity(dataset: ItemDataset, split_hash: str) -> dict[str, Any]:
    """Return the identity in a run's checkpoints: ``split_hash``, and ``features`` by modality."""
    names = getattr(dataset, "modalities", ())
    features = {name: {"fingerprint": dataset.item_features(name).fingerprint} for name in names}
    return {"split_hash": split_hash, "features": features}


def check_same_data(
    stored: Mapping[str, Any],
    present: Mapping[str, Any],
    run: str | Path,
    config: RunConfig,
    *other_remedies: str,
) -> None:
    """Compare the identity ``stored`` in a run's file, which may be partial, with the present one.

    A model's weights belong to internal ids; with other data these would be other items.

    Raises:
        UserError: they differ.
    """
    name, place = config["dataset"], config["data_path"]
    remedies = ("Restore the data", "say where they are with --data_path=DIRECTORY")
    remedy = ", or ".join((*remedies, *other_remedies)) + "."
    used, now = stored.get("split_hash"), present["split_hash"]
    if used and used != now:
        raise UserError(
            f"The run at {run} used the split {used} of {name}; the data in {place} have the "
            f"split {now}. {remedy}"
        )
    for modality, feature in (stored.get("features") or {}).items():
        other = present["features"].get(modality, {"fingerprint": "absent"})
        if other["fingerprint"] != feature["fingerprint"]:
            raise UserError(
                f"The run at {run} used {modality} features {feature['fingerprint']} of {name}; "
                f"those in {place} are {other['fingerprint']}. {remedy}"
            )


def feature_sources(dataset: ItemDataset) -> dict[str, Any]:
    """Return fingerprint, width and origin of each modality, as plain data for ``result.json``."""
    sources = {}
    for name in getattr(dataset, "modalities", ()):
        features = dataset.item_features(name)
        plain = {k: v for k, v in features.metadata.items() if isinstance(v, (str, int, float))}
        sources[name] = {
            "fingerprint": features.fingerprint, "dim": features.matrix.shape[1], **plain,
        }  # fmt: skip
    return sources
