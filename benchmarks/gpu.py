"""All of the product on a GPU: is it right there, and how fast is it.

1. Every model of ours is trained for two epochs on a cut of Mini without dropout, on the CPU and on
   the device in float32 and bfloat16. Losses are compared, and the ranked lists of one checkpoint
   that is read on either side.
2. BBQRec at Beauty's size on synthetic data: seconds an epoch of both phases, decoding of all test
   users at beam 50, peak memory.
3. Steps of phase two: host synchronisations, operators, the achieved rate of arithmetic, eager
   against `torch.compile`, which comes last and may take minutes.

    python benchmarks/gpu.py [--device cuda|cpu] [--small] [--skip models|scale|steps]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import common
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_bbqrec.config.config import BBQRecConfig, options_read
from recbole_bbqrec.data.histories import Histories, HistoryBatches
from recbole_bbqrec.generator.network.training_batch import TrainingBatch
from recbole_bbqrec.model.specs import MODELS
from recbole_bbqrec.nn import optim
from recbole_bbqrec.nn.transfer import send
from recbole_bbqrec.quick_start import load_run, prepare, run

MINI = Path(__file__).resolve().parents[1] / "dataset" / "Mini"
TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}  # relative, of the epoch's mean loss
LISTS_EQUAL = 0.99  # share of places in the ranked lists; near ties may change places
N_USERS = 120  # of the cut of Mini
SMALL_MODELS = ("BBQRec", "VQRec", "ItemNeighbours")
#: Options that make a short run the same on two devices, for the models that read them.
SHORT: dict[str, Any] = {
    "epochs": 2, "tokenizer_epochs": 2, "tokenizer_warmup_epochs": 1, "cf_epochs": 1,
    "dropout": 0.0, "encoder_dropout": 0.0, "sequence_dropout": 0.0, "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0, "dropout_prob": 0.0, "train_batch_size": 256, "codebook_size": 32,
    "tokenizer_batch_size": 64, "diversity_clusters": 4, "num_beams": 20,
    "user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)",
    "show_progress": False, "state": "ERROR", "modalities": ["text", "image"],
}  # fmt: skip
HOST = torch.autograd.DeviceType.CPU
#: Operators whose result the host needs before it can go on.
WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::unique_dim", "aten::_unique2")
#: Dense bf16 TFLOP/s and memory TB/s of cards, for the roofline.
PEAKS = {"H100": (989, 3.35), "H200": (989, 4.8), "A100": (312, 2.0), "L4": (121, 0.3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    parser.add_argument("--small", action="store_true", help="a minute on two cores")
    parser.add_argument("--skip", nargs="*", default=(), choices=("models", "scale", "steps"))
    parser.add_argument(
        "--models",
        nargs="*",
        default=None,
        choices=tuple(MODELS),
        metavar="MODEL",
        help="of part 1, to share them out among processes; default: all",
    )
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"# {name}, torch {torch.__version__}, {os.cpu_count()} cores\n", flush=True)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        failed = 0
        if "models" not in options.skip:
            failed = models(options)
        saved = None
        if "scale" not in options.skip:
            saved = scale(options)
        if saved is not None and "steps" not in options.skip:
            steps(options, saved)
        os.chdir("/")
    print(f"{time.perf_counter() - begin:.0f} s in all, {failed} models failed")
    raise SystemExit(1 if failed else 0)


# every model ----------------------------------------------------------------------------------


def models(options: argparse.Namespace) -> int:
    """Print a row for each model; return how many are wrong on the device."""
    write_cut(Path("data"))
    rows, failed = [], 0
    for name in options.models or (SMALL_MODELS if options.small else MODELS):
        try:
            row = compare(name, options.device)
        except Exception as error:  # the others still have to run on a machine that is lent
            traceback.print_exc()
            row = (name, f"FAILED: {type(error).__name__}", "", "", "")
        failed += not str(row[-1]).startswith("yes")
        rows.append(row)
        print("  " + " | ".join(map(str, row)), flush=True)
    common.table(("model", "loss, float32", "loss, bfloat16", "lists alike", "right"), rows)
    return failed


def compare(name: str, device: str) -> tuple[str, str, str, str, str]:
    """Train a model on the CPU and on the device; return relative differences of the losses."""
    wanted, saved = trained(name, "cpu", "float32")
    differences = {}
    for precision in TOLERANCE:
        found, other = trained(name, device, precision)
        differences[precision] = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(found, wanted))
    alike = min(lists_alike(path, device) for path in (saved, other))  # either way across
    right = alike >= LISTS_EQUAL and all(differences[p] <= TOLERANCE[p] for p in TOLERANCE)
    shown = [f"{differences[precision]:.1e}" for precision in TOLERANCE]
    return name, shown[0], shown[1], f"{alike:.1%}", "yes" if right else "NO"


def trained(name: str, device: str, precision: str) -> tuple[list[float], Path]:
    """Return the mean loss of each phase's first epoch, and the directory of the run."""
    read = options_read(name, "Mini")
    options = {key: value for key, value in SHORT.items() if key in read}
    options.update(data_path="data", use_gpu=device == "cuda", checkpoint_dir=f"saved-{device}")
    if "precision" in read:
        options["precision"] = precision
    elif "enable_amp" in read and precision == "bfloat16" and device == "cuda":
        options["enable_amp"] = True
    result = run(name, "Mini", overrides=options)
    directory = Path(result["files"]["model"]).with_suffix("")
    lines = [json.loads(x) for x in (directory / "epochs.jsonl").read_text().splitlines()]
    losses = [
        value
        for line in lines
        if line["epoch"] == 0
        for term, value in line["terms"].items()
        if term in ("loss", "total")
    ]
    return losses, directory


def lists_alike(saved: Path, device: str) -> float:
    """Return the share of equal places in a run's lists on the CPU and on the device."""
    lists = []
    for where in ("cpu", device):
        loaded = load_run(saved, {"use_gpu": where == "cuda", **precision_of(saved)})
        users = [str(token) for token in loaded.dataset.field2id_token["user_id"][1:]]
        lists.append(loaded.recommend(users=users, k=10)["item"].to_numpy())
    return float((lists[0] == lists[1]).mean())


def precision_of(saved: Path) -> dict[str, str]:
    """Rank in float32 where the model has the option."""
    config = BBQRecConfig.from_text((saved / "config.yaml").read_text())
    return {"precision": "float32"} if "precision" in options_read(config["model"], "Mini") else {}


def write_cut(root: Path) -> None:
    """Write the first users of Mini below ``root``."""
    shutil.copytree(MINI, root / "Mini")
    header, *lines = (MINI / "Mini.inter").read_text().splitlines()
    users = list(dict.fromkeys(line.split("\t")[0] for line in lines))[:N_USERS]
    kept = [line for line in lines if line.split("\t")[0] in set(users)]
    (root / "Mini" / "Mini.inter").write_text("\n".join([header, *kept]) + "\n")


# Beauty's size --------------------------------------------------------------------------------


def scale(options: argparse.Namespace) -> Path:
    """Train BBQRec at Beauty's size, print what it takes, and return the run's directory."""
    users, items = (400, 300) if options.small else (22_363, 12_101)
    write_synthetic(Path("data") / "Synthetic", users, items)
    gpu = options.device == "cuda"
    given = {
        "data_path": "data", "modalities": ["text", "image"], "show_progress": False,
        "state": "ERROR", "use_gpu": gpu, "num_beams": 50,
        "precision": "bfloat16" if gpu else "float32",  # most CPUs have no bfloat16
        "tokenizer_epochs": 3, "tokenizer_warmup_epochs": 1, "epochs": 2, "eval_step": 2,
    }  # fmt: skip
    if options.small:
        given.update(codebook_size=16, train_batch_size=128)
    result = run("BBQRec", "Synthetic", overrides=given)
    directory = Path(result["files"]["model"]).with_suffix("")
    lines = [json.loads(x) for x in (directory / "epochs.jsonl").read_text().splitlines()]
    rows = [
        (f"phase {phase}, epoch {line['epoch']}", line["seconds"]["train"], peak(line))
        for phase, name in ((1, "tokenize"), (2, "generate"))
        for line in lines
        if line["phase"] == name
    ]
    test = result["seconds"]["test"]
    rows.append((f"all {users:,} test users, beam 50", test, f"{users / test:,.0f} users/s"))
    print(f"BBQRec, {users:,} users, {items:,} items, {given['precision']}, text and image, batch "
          "as by default")  # fmt: skip
    common.table(("what", "seconds", "peak memory"), rows)
    print(f"peak memory of the run, MiB: {result['peak_memory_mib']}\n", flush=True)
    return directory


def peak(line: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:,.0f} MiB" for k, v in line.get("peak_memory_mib", {}).items())


def write_synthetic(folder: Path, n_users: int, n_items: int) -> None:
    """Write users of five and more events, popular items more often, and random features."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lengths = 4 + rng.geometric(1 / 4.88, n_users)
    popularity = 1.0 / np.arange(10, n_items + 10)
    drawn = rng.choice(n_items, lengths.sum(), p=popularity / popularity.sum())
    drawn[: 5 * n_items] = np.tile(np.arange(n_items), 5)[: len(drawn)]  # each often enough
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    places = np.concatenate([np.arange(length) for length in lengths])
    owners = np.repeat(np.arange(n_users), lengths)
    rng.shuffle(drawn)
    rows += [f"u{u}\ti{i}\t{t}" for u, i, t in zip(owners, drawn, places)]
    (folder / "Synthetic.inter").write_text("\n".join(rows) + "\n")
    for modality, width in (("text", 768), ("image", 1024)):
        matrix = rng.standard_normal((n_items, width), dtype=np.float32).astype(np.float16)
        np.save(folder / f"Synthetic.{modality}.npy", matrix)
        names = "".join(f"i{item}\n" for item in range(n_items))
        (folder / f"Synthetic.{modality}.items.txt").write_text(names)


# steps of phase two ---------------------------------------------------------------------------


def steps(options: argparse.Namespace, saved: Path) -> None:
    """Time steps of phase two, eager and compiled, and print what they consist of."""
    config = BBQRecConfig.from_text((saved / "config.yaml").read_text())
    model = load_run(saved).model.train()
    data = prepare(config)
    histories = Histories.from_training_data(data.train_data._dataset)
    batches = HistoryBatches(
        histories, batch_size=config["train_batch_size"], encoding=config["history_encoding"]
    )
    count = 5 if options.small else 60
    sample = [batch for batch, _ in zip(batches.epoch(0), range(count))]
    optimizer = optim.build_optimizer(model.generator.named_parameters(), learning_rate=1e-4,
                                      weight_decay=0.0)  # fmt: skip
    device = torch.device(options.device)

    def step(batch: Any) -> None:
        loss, _ = model.history_loss(batch)  # moved to the device there
        optim.step(loss, model.generator, optimizer, clip=config["clip_grad_norm"])

    rows = [("eager", *timed(step, sample, device))]
    print(f"host synchronisations in {count} steps: {synchronisations(step, sample, device)}")
    with FlopCounterMode(display=False) as flops:
        step(sample[-1])
    rate = flops.get_total_flops() / rows[0][1] * 1e3 / 1e12
    print(f"{flops.get_total_flops() / 1e9:.1f} GFLOP a step, {rate:.2f} TFLOP/s achieved", end="")
    name = torch.cuda.get_device_name() if options.device == "cuda" else ""
    for card, (tflops, bandwidth) in PEAKS.items():
        if card in name:
            balance = tflops / bandwidth
            print(f"; {rate / tflops:.1%} of {card}'s peak; it is bound by memory below "
                  f"{balance:.0f} FLOP a byte", end="")  # fmt: skip
    print("\n")
    operators(step, sample[: min(10, count)], options.device)
    python_time(step, sample, device)
    common.table(("steps", "median ms", "slowest ms"), rows)
    if options.device == "cpu":
        print("torch.compile is left out: on a CPU compiling takes minutes")
        return
    try:
        rows = [("CUDA graph of one batch, without optimizer", *graphed(model, sample[-1], device))]
    except Exception as error:
        rows = [(f"CUDA graph: {type(error).__name__}: {error}"[:90], float("nan"), float("nan"))]
    common.table(("steps", "median ms", "slowest ms"), rows)
    try:  # last, as it may compile for long
        model.generator.loss = torch.compile(model.generator.loss, dynamic=True)
        rows = [("torch.compile", *timed(step, sample[:10], device))]
    except Exception as error:
        rows = [(f"torch.compile: {type(error).__name__}", float("nan"), float("nan"))]
    common.table(("steps", "median ms", "slowest ms"), rows)


def graphed(model: Any, batch: Any, device: torch.device) -> tuple[float, float]:
    """Return milliseconds of forward and backward without the host, by replays of a CUDA graph."""
    network = model.generator
    layout = TrainingBatch.of(network.config, model.catalogue, batch.items, batch.targets)
    layout = send(layout, device)  # what a graph holds is there before it is recorded

    def work() -> None:
        model.zero_grad(set_to_none=True)
        model.history_loss(batch)[0].backward()

    with mock.patch.object(TrainingBatch, "of", return_value=layout):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    return timed(lambda _: graph.replay(), [None] * 20, device)


def timed(step: Callable[[Any], None], sample: list[Any], device: Any) -> tuple[float, float]:
    """Return the median and the largest milliseconds of a step, after two rounds to warm up."""
    for batch in [*sample, *sample]:
        step(batch)
    taken = []
    for batch in sample:
        wait(device)
        begin = time.perf_counter()
        step(batch)
        wait(device)
        taken.append(1000 * (time.perf_counter() - begin))
    return float(np.median(taken)), max(taken)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def synchronisations(step: Callable[[Any], None], sample: list[Any], device: Any) -> Any:
    """Count the operations that make the host wait, with the lines that ask for them."""
    if device.type != "cuda":
        return "not counted without CUDA"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for batch in sample:
                step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "synchronizing" in str(w.message)]
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in found)
    return f"{sum(places.values())} {dict(places.most_common(12))}"


def operators(step: Callable[[Any], None], sample: list[Any], device: str) -> None:
    """Print the operators that take most time on the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        for batch in sample:
            step(batch)
    waiting = {e.key: e.count for e in profile.key_averages() if e.key in WAITING}
    print(f"operators that make the host wait on a GPU, in {len(sample)} steps: {waiting}\n")
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, key))[:14]
    total = sum(getattr(event, key) for event in profile.key_averages()) or 1
    # An operator's row repeats the time of its kernels, which have rows of their own.
    kernels = [e for e in profile.key_averages() if device == "cpu" or e.device_type != HOST]
    busy = sum(getattr(event, key) for event in kernels)
    print(f"time on the device a step: {busy / 1000 / len(sample):.2f} ms\n")
    rows = [(e.key[:60], e.count, getattr(e, key) / 1000, f"{getattr(e, key) / total:.0%}")
            for e in events]  # fmt: skip
    common.table(("operator", "calls", "ms", "share"), rows)


def python_time(step: Callable[[Any], None], sample: list[Any], device: torch.device) -> None:
    """Print the Python functions that take most of the host's time in steps."""
    profile = cProfile.Profile()
    profile.enable()
    for batch in sample:
        step(batch)
    profile.disable()
    wait(device)
    found = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    rows = [
        (
            f"{Path(file).name}:{line} {name}"[:60],
            calls,
            1000 * own / len(sample),
            1000 * all_ / len(sample),
        )
        for (file, line, name), (_, calls, own, all_, _) in sorted(found, key=lambda x: -x[1][2])[
            :16
        ]
    ]
    common.table(("Python function", "calls", "own ms a step", "with callees"), rows)


if __name__ == "__main__":
    main()
