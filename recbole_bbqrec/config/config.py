"""RecBole's Config with our defaults laid over it and our options checked.

Differences from RecBole's: values from files and the command line are parsed as data (RecBole
evaluates them as Python); unknown keys, keys that the model does not read and values out of range
are errors; the resolved configuration can be written as plain text and read back.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from recbole.utils import EvaluatorType
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_bbqrec.config.checks.event_columns import check_event_columns
from recbole_bbqrec.config.checks.item_columns import check_item_columns
from recbole_bbqrec.config.checks.logging_services import check_logging_services
from recbole_bbqrec.config.checks.negative_sampling import KEY as NEGATIVES
from recbole_bbqrec.config.checks.negative_sampling import with_negatives
from recbole_bbqrec.config.checks.recbole_models import check_recbole_model
from recbole_bbqrec.config.checks.recbole_options import check_recbole_options
from recbole_bbqrec.config.options import (
    MODEL_OPTIONS,
    OF_EVERY_RUN,
    OF_RECBOLES_LOOP,
    RECBOLE_OPTIONS,
    RUN_OPTIONS,
    check_known,
    check_read,
    check_values,
    nearest_read,
)
from recbole_bbqrec.config.processes import ConfigOfProcess
from recbole_bbqrec.config.values import read_defaults, read_yaml
from recbole_bbqrec.config.yaml_files import listing_files, neglected_properties, overlay_files
from recbole_bbqrec.data.protocol.settings import check_eval_args
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.metrics.names import check_valid_metric
from recbole_bbqrec.model.registry import (
    get_model,
    init_command,
    is_ours,
    own_sources,
    property_bases,
    spec,
)
from recbole_bbqrec.reading import PlainLoader, parse_yaml
from recbole_bbqrec.run_files.console import DETAIL
from recbole_bbqrec.run_files.output_folder import check_output_folder

#: Keys that RecBole reads but lists in none of its files.
_UNLISTED = {"model", "dataset", "config_files", "encoding", "tail_ratio"}
_UNLISTED_OF_MODELS = {"reg_weight", "reg_weights"}  # of some of RecBole's models
#: Options that older runs lack, and the value that they worked by.
_BEFORE = {"history_positions": "first"}  # of every encoding
#: Values that RecBole derives from the others; they are not part of the resolved configuration.
# RecBole would unpickle these files; data never comes in as code here.
_PICKLED = ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path")
_DERIVED = {"MODEL_TYPE"}


class BBQRecConfig(ConfigOfProcess):
    """The configuration of one run.

    Args:
        model: name of a model of ours or RecBole's; or of a class of one's own, or that class
            (:func:`recbole_bbqrec.model.registry.add_model`).
        dataset: data set name; its files are in ``<data_path>/<dataset>/``.
        config_files: YAML files, later ones win. They may serve several models: what this one does
            not read is left out and listed in :attr:`warnings`; unknown names are refused.
        overrides: values that win over the files (command line, Python); all must be read.
        stored: values below the files, of a configuration written earlier; checked as a file's.
            Options that only training reads may then disagree with the rest, such as
            `valid_metric` with another `topk`: they were checked when the run began.

    Raises:
        UserError: unknown model, key or value, an override that the model does not read, a column
            of the items that is not loaded, or a `checkpoint_dir` that cannot be written.
    """

    def __init__(
        self,
        model: str | type,
        dataset: str,
        config_files: Sequence[str | Path] = (),
        overrides: Mapping[str, Any] | None = None,
        *,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        self._stored = dict(stored or {})
        self.resolved: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.spec = spec(model)
        model = self.spec.name
        model_class: Any = self.spec.load()
        try:
            super().__init__(model_class, dataset, list(config_files), dict(overrides or {}))
        except NotImplementedError as error:  # RecBole raises it for metrics alone
            raise UserError(f"Option `metrics`: {error}. Use for example Recall, NDCG.") from error
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            cause = error.args[0] if isinstance(error, KeyError) else error
            raise UserError(f"Configuration: {cause}") from error
        if self["tokenize_only"] and not self.spec.two_phase:
            raise UserError(
                f"Option `tokenize_only` is set; {model} makes no semantic IDs and has no phase "
                "one. Remove it, or choose a generative model such as BBQRec."
            )
        modes = self["eval_args"]["mode"]
        if self["mask_history"] and set(modes.values()) != {"full"}:
            raise UserError(
                f"Option `mask_history` is True with `eval_args` mode {modes}; it needs `full`: "
                "with sampled candidates nothing is masked. Remove one."
            )
        check_eval_args(self["protocol"], self["eval_args"])
        if "labeled" in modes.values() and self["eval_type"] == EvaluatorType.RANKING:
            raise UserError(
                f"Option `eval_args` has mode {modes}, which ranks nothing; with `metrics` "
                f"{self['metrics']} expected `full`, or uniN. With `labeled` give `metrics` such "
                "as AUC, LogLoss, and labels in the data."
            )
        if stored is None:
            check_logging_services(self)
        if stored is None and self["eval_step"] > 0:
            check_valid_metric(self)
        check_event_columns(self)
        check_item_columns(self)
        given = self.resolved.get("tokenizer_path") if stored is None else None
        if given is not None and not Path(given).is_file():
            raise UserError(
                f"Option `tokenizer_path` is {given}, which is no file; expected the "
                "semantic_ids.safetensors of a run. Correct it, or leave it out to run phase one."
            )
        # Skip the default folder: `evaluate` and `tune` configure runs without writing to it.
        if stored is None and "checkpoint_dir" in self.external_config_dict:
            check_output_folder("checkpoint_dir", self["checkpoint_dir"])
        if is_ours(model):
            model_class.check_options(self)

    # RecBole's hooks ------------------------------------------------------------------------

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return PlainLoader

    def _load_config_files(self, file_list: list[str | Path]) -> dict[str, Any]:
        values = dict(self._stored)
        for path in file_list:
            values.update(read_yaml(path))
        return values

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return config_dict  # values are data already; RecBole would evaluate texts

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # our command line hands its values over as overrides

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        for path in overlay_files(model, dataset, *property_bases(model), own_sources().get(model)):
            self._update_internal_config_dict(path)

    def _update_internal_config_dict(self, file: str | Path) -> dict[str, Any]:
        values = read_defaults(file)
        self.internal_config_dict.update(values)
        return values

    def _get_final_config_dict(self) -> dict[str, Any]:
        final: dict[str, Any] = super()._get_final_config_dict()
        defaults = self.internal_config_dict["eval_args"]
        for values in (self._stored, self.external_config_dict):
            defaults = complete_eval_args(values.get("eval_args"), defaults)
        final["eval_args"] = defaults
        model, dataset = self.model, self.dataset
        read = _read_by(model, self.internal_config_dict)
        anyones = {*read, *self.internal_config_dict, *MODEL_OPTIONS, *_UNLISTED_OF_MODELS}
        check_known(self.file_config_dict, anyones, f"for model {model}")
        check_read(self.variable_config_dict, read, model, init_command(model))
        self._leave_out(final, read)
        check_values(final, {**RUN_OPTIONS, **RECBOLE_OPTIONS})
        check_recbole_options(final)
        if is_ours(model):
            check_values(final, MODEL_OPTIONS)
        else:
            known = self.spec.base or model
            listed = {k: v for p in listing_files(known) for k, v in read_defaults(p).items()}
            check_recbole_model(known, listed, final)
            fractions = {k for k, v in listed.items() if isinstance(v, float)}
            final.update({k: float(final[k]) for k in fractions if isinstance(final[k], int)})
        if isinstance(final["topk"], int):
            final["topk"] = [final["topk"]]
        # A stored value is no request of the user: it was the default when the run began.
        asked = NEGATIVES in self.external_config_dict and NEGATIVES not in self._stored
        final[NEGATIVES] = with_negatives(
            model, self.dataset, final, self.internal_config_dict, asked
        )
        if final[NEGATIVES] == "None":  # RecBole takes the word, but not for every loss
            final[NEGATIVES] = None
        for key in filter(final.get, _PICKLED):
            raise UserError(f"Option `{key}` is not supported: it relies on pickle. Remove it.")
        self.resolved = {
            key: copy.deepcopy(value) for key, value in final.items() if key not in _DERIVED
        }
        self.resolved.update(model=model, dataset=dataset)
        return final

    def __str__(self) -> str:
        """Return RecBole's listing without the options that the run does not read."""
        if not _has_own_loop(self.model):
            return str(super().__str__())
        values = self.final_config_dict
        hidden = {key: values.pop(key) for key in OF_RECBOLES_LOOP if key in values}
        try:
            return str(super().__str__())
        finally:
            values.update(hidden)

    def _set_default_parameters(self) -> None:
        root = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        # RecBole reads ml-100k from its own package, wherever `data_path` is.
        self.final_config_dict["data_path"] = os.path.join(root, self.dataset)

    # ours -----------------------------------------------------------------------------------

    def log_to(self, logger: logging.Logger) -> None:
        """Log the configuration and its warnings."""
        logger.info(self, extra=DETAIL)
        for message in filter(None, [*self.warnings, neglected_properties()]):
            logger.warning(message)

    def _leave_out(self, final: dict[str, Any], read: set[str]) -> None:
        """Take out what the files hold for other models; warn of what the user's files hold."""
        others = [key for key in self.file_config_dict if key not in read]
        for key in others:
            final.pop(key)
            self.external_config_dict.pop(key)
            if key in self.internal_config_dict:
                final[key] = self.internal_config_dict[key]
        found = [key for key in others if key not in self._stored]
        if found:
            named = ", ".join(f"`{key}`{nearest_read(key, read)}" for key in found)
            self.warnings.append(
                f"{self.model} does not read these options of the config files, which change "
                f"nothing: {named}. Its options are written by {init_command(self.model)}."
            )

    @property
    def explicit(self) -> dict[str, Any]:
        """Values given by config files, command line or caller."""
        return dict(self.external_config_dict)

    def to_text(self) -> str:
        """Return the resolved configuration as YAML, enough to rebuild the run."""
        return yaml.safe_dump(_plain(self.resolved), sort_keys=True)

    @classmethod
    def from_text(cls, text: str, overrides: Mapping[str, Any] | None = None) -> BBQRecConfig:
        """Rebuild a configuration written by :meth:`to_text`; ``overrides`` win."""
        try:
            values = {**_BEFORE, **parse_yaml(text)}
            names = {**values, **(overrides or {})}
            names = {key: names[key] for key in ("model", "dataset")}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                "A stored configuration is unreadable: it is no YAML that names a model and a data "
                "set. Use another run, or train again."
            ) from error
        return cls(**names, overrides=overrides, stored=values)


@cache
def options_read(model: str, dataset: str) -> frozenset[str]:
    """Return the names of all options that a run of ``model`` on ``dataset`` reads.

    Raises:
        UserError: unknown model.
    """
    return frozenset(_read_by(model, default_options(model, dataset)))


def default_options(model: str, dataset: str) -> dict[str, Any]:
    """Return what the YAML files of RecBole and of this package say, the last one winning."""
    # RecBole finds its files in the middle of making a Config, whose end needs valid values.
    config = BBQRecConfig.__new__(BBQRecConfig)
    config._init_parameters_category()
    config.yaml_loader = config._build_yaml_loader()
    config._load_internal_config_dict(model, get_model(model), dataset)
    return {k: v for k, v in config.internal_config_dict.items() if k not in _DERIVED}


def check_options_read(model: str, dataset: str, values: Mapping[str, Any]) -> None:
    """Raise a UserError for the first of ``values`` that a run of ``model`` would not read."""
    check_read(values, options_read(model, dataset), model, init_command(model))


def _read_by(model: str, listed: Iterable[str]) -> set[str]:
    """Return the options of every run and those ``listed`` in the YAML files."""
    read = {
        *listed,
        *general_arguments,
        *training_arguments,
        *evaluation_arguments,
        *dataset_arguments,
        *RUN_OPTIONS,
        *OF_EVERY_RUN,
        *_UNLISTED,
    }
    if not is_ours(model):
        read |= _UNLISTED_OF_MODELS
    if _has_own_loop(model):
        read -= OF_RECBOLES_LOOP
    return read


def _has_own_loop(model: str) -> bool:
    """Return True if a loop of this package trains the model, not RecBole's."""
    return spec(model).two_phase or spec(model).trains_on_histories


def complete_eval_args(given: Any, defaults: Mapping[str, Any]) -> Any:
    """Return ``eval_args`` with missing keys from ``defaults``.

    RecBole fills them with an order and a split that sequential models cannot have, so that `mode`
    alone could not be set.
    """
    if given is None:
        return dict(defaults)
    return {**defaults, **given} if isinstance(given, Mapping) else given


def _plain(value: Any) -> Any:
    """Return ``value`` with tuples as lists, for safe YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
