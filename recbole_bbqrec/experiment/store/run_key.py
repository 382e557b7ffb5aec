"""Identity of a run: hashes of its configuration, its data and the code.

Two runs with the same key would give the same result, so the second is not trained. The key holds
everything that can change a metric, and nothing else: see :data:`NOT_IN_KEY`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import sha256_of
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.data.dataset import check_modalities
from recbole_bbqrec.data.features import require_files
from recbole_bbqrec.data.protocol.settings import SplitSettings
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.registry import own_sources, spec
from recbole_bbqrec.settings import options_of
from recbole_bbqrec.version import __version__

#: Options that are not part of the key -> the reason.
NOT_IN_KEY: dict[str, str] = {
    # locations: the content of what is read counts instead
    "data_path": "location of the data",
    "checkpoint_dir": "location of the output",
    "dataset_save_path": "RecBole's pickle caches, which are not supported",
    "dataloaders_save_path": "the same",
    "prepare": "makes the data if absent; its content counts",
    "text_columns": "the same",
    "save_data": "a copy of what was read",
    "resume": "a resumed run has the bits of an uninterrupted one",
    "data_layout": "where events are kept; they are the same",
    "mapped_folder": "the same",
    # display and logging
    "show_progress": "display",
    "state": "amount of logging",
    "log_wandb": "logging",
    "wandb_project": "logging",
    "log_mlflow": "logging",
    "loss_decimal_place": "logging",
    # the machine: it can change the last bits, and is noted in the result
    "gpu_id": "which device",
    "use_gpu": "which device",
    "num_threads": "threads",
    "worker": "loader processes",
    "tune_allocator": "memory",
}

#: Options that name an input file, whose content counts instead of its name.
INPUT_FILES = ("tokenizer_path", "cf_embedding_path")

#: Options that measure a ranking. With the same `valid_metric` the training is the same.
MEASURES = ("topk", "metrics", "tail_ratio", "eval_batch_size")
#: Options that change nothing in a training without validation.
_OF_VALIDATION = ("valid_metric", "mask_history", "num_beams")

#: Options that earlier versions lacked, at the values that say what those versions did: of
#: generative models, and of those trained on histories.
_NEW_OF_GENERATIVE: dict[str, Any] = {
    "history_positions": "auto",  # with a causal encoder
    "norm_positions": False,
    "initializer_range": 0.02,
    "lr_schedule": "cosine",
    "mim_reduction": "mean",  # with a mean of the reconstruction
    "diversity_partners": "code",
    "item_head_sampling": "auto",  # full, as those versions were, below 200,000 items
    "item_head_samples": 8192,
    "item_head_ranking": "exact",
    "neighbour_search": "auto",  # exact, as those versions did, below 100,000 items
}
_NEW_OF_HISTORIES: dict[str, Any] = {
    "history_positions": "first",
    "norm_positions": False,
    "attention_dropout": 0.0,
    "inner_dropout": 0.0,
    "input_norm": True,
    "initialization": "normal",
    "adam_betas": [0.9, 0.999],
    "code_scale": "item",
    "interest_clustering": "unit",
    "one_modality_score": "mean",
    "neighbour_search": "auto",
}

#: Suffixes of RecBole's files of a data set.
_ATOMIC = ("inter", "item", "user", "kg", "link", "net")

#: Sources that only start runs or read their results, and so are not part of the code version.
_NOT_IN_CODE = ("__main__.py", "cli/*", "experiment/*", "inspection/*", "prepare/*")


@dataclass(frozen=True)
class RunKey:
    """The three parts of a run's identity.

    Attributes:
        config: hash of the resolved configuration and of the use of the test split.
        data: hash of the split and of the files that the run reads.
        code: package version and hash of its source files.
    """

    config: str
    data: str
    code: str

    @property
    def key(self) -> str:
        """Hash of the three parts, 12 hex characters; part of the run's directory name."""
        return digest([self.config, self.data, self.code])[:12]

    def same_but_code(self, other: RunKey) -> bool:
        return (self.config, self.data) == (other.config, other.data)


def run_key(config: BBQRecConfig, split_hash: str, *, test: bool = True) -> RunKey:
    """Return the key of a run of ``config`` on data whose split is ``split_hash``.

    Raises:
        UserError: an input file cannot be read.
    """
    own = own_sources().get(config["model"])  # the version of the code does not cover it
    return RunKey(
        digest([counted_options(config.resolved), test, *([file_hash(own)] if own else [])]),
        digest([split_hash, data_files_hash(config)]),
        code_version(),
    )


def training_hash(config: BBQRecConfig) -> str:
    """Return the hash of the options that can change the trained weights.

    Runs that agree in it, in data and code differ at most in how their ranking is measured. With
    sampled candidates the hash is empty: these are drawn in the run.
    """
    if set(config["eval_args"]["mode"].values()) != {"full"}:
        return ""
    left_out = {*MEASURES, *(_OF_VALIDATION if config["eval_step"] <= 0 else ())}
    counted = counted_options(config.resolved)
    return digest([[k, v] for k, v in sorted(counted.items()) if k not in left_out])


def data_files_hash(config: BBQRecConfig) -> str:
    """Hash the contents of every data file that a run of ``config`` reads."""
    directory, name = Path(config["data_path"]), config["dataset"]
    suffixes = [*_ATOMIC, *(config["additional_feat_suffix"] or [])]
    files = [directory / f"{name}.{suffix}" for suffix in (*suffixes, "catalogue.txt")]
    for part in config["benchmark_filename"] or []:
        files.append(directory / f"{name}.{part}.inter")
    files += [path for paths in _feature_files(config).values() for path in paths]
    return digest([[path.name, file_hash(path)] for path in files if path.is_file()])


def check_features(config: BBQRecConfig) -> None:
    """Refuse a run whose feature files are missing, before earlier runs take hours.

    Raises:
        UserError: a modality that the model reads lacks its file of vectors or of items.
    """
    directory, name = Path(config["data_path"]), config["dataset"]
    for modality, paths in _feature_files(config).items():
        require_files(directory, name, modality, paths)


def code_version() -> str:
    """Return the package version and a hash of the source files that take part in a run."""
    return f"{__version__}+{_source_hash()}"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, cached until its size or time changes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        state = path.stat()
        return _file_hash(path.resolve(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"Cannot read the file {path}: {error.strerror}.") from error


def counted_options(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the options that belong to the key, input files as hashes of their content."""
    default = _defaults_of_before(resolved)
    counted = {
        key: value
        for key, value in resolved.items()
        if key not in NOT_IN_KEY and not (key in default and value == default[key])
    }
    for key in INPUT_FILES:
        if counted.get(key) is not None:
            counted[key] = file_hash(Path(counted[key]))
    if not _reads_features(resolved["model"]):
        counted.pop("modalities", None)
    return counted


def _defaults_of_before(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the options that stored runs may lack, at the values that they worked by."""
    defaults = {each.name: each.default for each in options_of(SplitSettings).values()}
    kind = spec(resolved["model"])
    if kind.trains_on_histories:
        return {**defaults, **_NEW_OF_HISTORIES}
    if not kind.two_phase:
        return defaults
    defaults.update(_NEW_OF_GENERATIVE)
    if resolved["history_encoding"] == "bidirectional":
        del defaults["history_positions"]  # they counted from the first item
    if resolved["recon_reduction"] == "sum":
        del defaults["mim_reduction"]  # they summed the bound, too
    return defaults


def _reads_features(model: str) -> bool:
    """Return False for RecBole's own models, whatever ``modalities`` the data set's YAML lists."""
    return spec(model).reads_features


def _feature_files(config: BBQRecConfig) -> dict[str, tuple[Path, Path]]:
    """Return the files of each modality that a run of ``config`` reads."""
    directory, name = Path(config["data_path"]), config["dataset"]
    names = config["modalities"] if _reads_features(config["model"]) else None
    return {
        modality: (
            directory / f"{name}.{modality}.npy",
            directory / f"{name}.{modality}.items.txt",
        )
        for modality in check_modalities(names)
    }


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified: int) -> str:
    return sha256_of(path)


@lru_cache(maxsize=1)
def _source_hash() -> str:
    root = Path(__file__).resolve().parents[2]
    sources = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not any(fnmatch(name, pattern) for pattern in _NOT_IN_CODE):
            sources.append([name, hashlib.sha256(path.read_bytes()).hexdigest()])
    return digest(sources)[:12]


def digest(value: Any) -> str:
    """Return the hex SHA-256 of plain data; the order of keys does not count, 1 and 1.0 differ."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
