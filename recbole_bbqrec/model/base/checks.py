"""Checks of options that several models share; each raises a UserError with a remedy."""

from __future__ import annotations

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.protocols import ItemDataset, RunConfig


def require_modalities(config: RunConfig, model: str) -> None:
    """Require at least one modality: the model reads item features."""
    if not config["modalities"]:
        raise UserError(
            f"Option `modalities` is {config['modalities']!r}; {model} needs the features of at "
            "least one modality, such as [text]. Set it, or use a model without features."
        )


def require_feature_dataset(dataset: ItemDataset, model: str) -> None:
    """Require a data set that can hold the items' features; RecBole's own cannot."""
    if not hasattr(dataset, "item_features"):
        raise UserError(
            f"{model} reads features of the items, which RecBole's {type(dataset).__name__} does "
            "not have. Make the data set with recbole_bbqrec.quick_start.prepare(config), whose "
            "result has `dataset`, `train_data`, `valid_data` and `test_data`."
        )


def modalities_of(dataset: ItemDataset) -> tuple[str, ...]:
    """Return the names of the features that a data set has, or a UserError if it can have none."""
    require_feature_dataset(dataset, "The model")
    return tuple(dataset.modalities)


def require_modality(config: RunConfig, model: str, name: str) -> None:
    """Require the modality ``name``, on which the model is built."""
    if name not in (config["modalities"] or ()):
        raise UserError(
            f"Option `modalities` is {config['modalities']!r}; {model} needs {name!r} among them. "
            f"Add it, and the files <Dataset>.{name}.npy and <Dataset>.{name}.items.txt."
        )


def require_whole_histories(config: RunConfig, model: str) -> None:
    """Require RecBole's leave-one-out rows without negatives, for training by user."""
    if config["train_neg_sample_args"]["distribution"] != "none":
        raise UserError(
            f"Option `train_neg_sample_args` is {config['train_neg_sample_args']}; {model} trains "
            "on whole histories and takes no sampled rows. Remove it or leave it empty."
        )
    if config["benchmark_filename"]:
        raise UserError(
            f"Option `benchmark_filename` is {config['benchmark_filename']!r}; {model} needs whole "
            "user sequences: give one .inter file and let RecBole split it."
        )
