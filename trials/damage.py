"""Damaged inputs: each gives the right result or one error of ours; no traceback, no hang.

A tiny run and its data set are damaged file by file: bits and bytes changed, blocks zeroed, cut,
doubled, exchanged or inserted, whole files emptied or replaced by another, keys of checkpoints lost
and their values changed, in a file whose checksums fit. What reads the file then ends in one of:

    right      the content is what it was: the damage fell where nothing is read
    refused    a UserError that names the file or the option
    other      the content differs: only allowed for text without a checksum, which a user may edit
    traceback  any other exception
    hang       longer than a minute
    executed   a crafted file ran its code

Prints one row a kind of file; exits with 1 if there is a traceback, a hang, an execution, or an
"other" where a checksum should have told.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import TINY, arguments, digest, finish, machine, write_options

import recbole_bbqrec.quick_start as quick_start
from recbole_bbqrec.config.config import BBQRecConfig
from recbole_bbqrec.config.resume import find_resumable
from recbole_bbqrec.data.features import load_modality
from recbole_bbqrec.data.titles import read_titles
from recbole_bbqrec.errors import UserError
from recbole_bbqrec.experiment.tune.search_space import read_space
from recbole_bbqrec.model.registry import get_model
from recbole_bbqrec.run_files.checkpoint import load_checkpoint, load_weights
from recbole_bbqrec.run_files.finished_run import FinishedRun
from recbole_bbqrec.run_files.names import RunFiles
from recbole_bbqrec.run_files.per_user import PerUser
from recbole_bbqrec.tokenizer.semantic_ids import SemanticIds
from recbole_bbqrec.trainer.registry import get_trainer_class

SECONDS = 60  # more is a hang
RIGHT, REFUSED, OTHER = "right", "refused", "other"
TRACEBACK, HANG, EXECUTED = "traceback", "hang", "executed"
OUTCOMES = (RIGHT, REFUSED, OTHER, TRACEBACK, HANG, EXECUTED)
SPACE = "learning_rate loguniform -8,-4\ndropout uniform 0.0,0.5\nhidden_size choice [32,64]\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: the file.
        read: reads it as a run does, and returns what it read.
        checked: a checksum covers the content, so that another content must not pass.
        share: weight among the kinds; slow readers have less.
        rewrites: the damage is done to the content, and the checksums are made to fit.
    """

    path: Path
    read: Callable[[], Any]
    checked: bool
    share: float = 1.0
    rewrites: bool = False


def prepare_files(folder: Path) -> tuple[RunFiles, Path, BBQRecConfig]:
    """Make the tiny run, a copy of its data and sources of a data set."""
    shutil.copytree(Path(TINY["data_path"]) / "Mini", folder / "data" / "Mini")
    options = write_options(folder, data_path=str(folder / "data"))
    finish(["run", "--model=BBQRec", "--dataset=Mini", f"--config_files={options}"], folder)
    (directory,) = (path.parent for path in folder.glob("saved/*/result.json"))
    (folder / "space.txt").write_text(SPACE)
    events = (folder / "data" / "Mini" / "Mini.inter").read_text().splitlines()[1:]
    rows = [",".join(line.split("\t")[:3]) for line in events]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    titles = read_titles(folder / "data" / "Mini" / "Mini.titles.tsv")
    lines = [json.dumps({"item_id": token, "title": title}) for token, title in titles.items()]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    return RunFiles(directory), options, BBQRecConfig("BBQRec", "Mini", [options])


def kinds_of(folder: Path, files: RunFiles, options: Path, config: BBQRecConfig) -> dict[str, Kind]:
    """Return every kind of file that is read, with its reader."""
    data = folder / "data" / "Mini"
    prepared = quick_start.prepare(config)
    tokens = list(prepared.dataset.item_tokens)
    network = get_model("BBQRec")(config, prepared.train_data._dataset)
    trainer = get_trainer_class("BBQRec")(config, network)
    trainer.use_data(prepared.identity)
    trainer.use_files(files)
    trained = torch.ones(len(tokens), dtype=torch.bool)
    tokenizer = network.build_tokenizer(config, prepared.train_data._dataset, trained)
    result = files.result.read_text()

    def model() -> Any:
        return quick_start.load_data_and_model(files.model).model.state_dict()

    def resume() -> Any:
        trainer.resume_checkpoint(files.resume)
        return {name: loop.to_plain() for name, loop in trainer.loops.items()}, trainer._pending

    def phase_one() -> Any:
        state = load_checkpoint(files.tokenizer_network)
        load_weights(tokenizer, state.get("state_dict", {}), files.tokenizer_network)
        return tokenizer.state_dict()

    def resumable() -> Any:
        files.result.unlink()
        try:
            found = find_resumable(config)
        finally:
            files.result.write_text(result)
        return None if found is None else str(found.directory)

    def options_read() -> Any:
        return BBQRecConfig("BBQRec", "Mini", [options]).resolved

    def modality() -> Any:
        read = load_modality(data, "Mini", "text", tokens)
        return read.matrix, read.present, read.fingerprint

    def interactions() -> Any:
        return quick_start.prepare(config).split_hash

    def ids() -> Any:
        return vars(SemanticIds.load(files.semantic_ids))

    def finished() -> Any:
        run = FinishedRun.at(files.directory)
        return run.result, run.epochs

    def prepared_tables() -> Any:
        made = folder / "made"
        words = ["prepare", "Own", f"--interactions={folder / 'events.csv'}"]
        words += [f"--items={folder / 'items.jsonl'}", f"--data_path={made}"]
        words += ["--text_encoder=tfidf"]
        shutil.rmtree(made, ignore_errors=True)
        called(words)
        return {path.name: path.read_bytes() for path in sorted((made / "Own").iterdir())}

    def rewritten(read: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: read() and None  # any content may come of it, but no traceback

    return {
        "model.pth": Kind(files.model, model, True, 0.5),
        "model.pth, rewritten": Kind(files.model, rewritten(model), False, 0.5, True),
        "resume.pth": Kind(files.resume, resume, True),
        "resume.pth, rewritten": Kind(files.resume, rewritten(resume), False, 1.0, True),
        "resume.pth, auto": Kind(files.resume, lambda: resumable() and None, False),
        "tokenizer.pth": Kind(files.tokenizer_network, phase_one, True),
        "semantic_ids": Kind(files.semantic_ids, ids, True),
        "per_user.npz": Kind(files.per_user, lambda: vars(PerUser.load(files.per_user)), True),
        "epochs.jsonl": Kind(files.epochs, finished, False),
        "result.json": Kind(files.result, finished, False),
        "config file": Kind(options, options_read, False),
        "NAME.inter": Kind(data / "Mini.inter", interactions, False, 0.5),
        "NAME.text.npy": Kind(data / "Mini.text.npy", modality, True),
        "NAME.text.items.txt": Kind(data / "Mini.text.items.txt", modality, True),
        "features.yaml": Kind(data / "Mini.features.yaml", modality, True),
        "titles.tsv": Kind(
            data / "Mini.titles.tsv", lambda: read_titles(data / "Mini.titles.tsv"), False
        ),
        "tune parameters": Kind(
            folder / "space.txt",
            lambda: [(str(p), p.extremes) for p in read_space(folder / "space.txt")],
            False,
        ),
        "prepare, events": Kind(folder / "events.csv", prepared_tables, False, 0.1),
        "prepare, items": Kind(folder / "items.jsonl", prepared_tables, False, 0.1),
    }


def called(words: list[str]) -> None:
    """Run a verb in this process; its error, which it prints, is raised again."""
    from recbole_bbqrec.cli.main import main

    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    if code != 0:
        raise UserError(shown.getvalue())


# damage ---------------------------------------------------------------------------------------


def damaged(content: bytes, rng: random.Random, others: list[bytes]) -> tuple[str, bytes]:
    """Return the name of a damage and the content after it."""
    size = len(content)
    at = rng.randrange(size)
    length = min(size - at, rng.choice((1, 8, 64, 512)))
    changed = bytearray(content)
    how = rng.choice(
        ("bit", "bit", "bit", "byte", "byte", "zero", "cut", "double", "exchange", "insert",
         "drop", "empty", "foreign")
    )  # fmt: skip
    if how == "bit":
        changed[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        changed[at] = rng.randrange(256)
    elif how == "zero":
        changed[at : at + length] = bytes(length)
    elif how == "cut":
        del changed[at:]
    elif how == "double":
        changed[at:at] = content[at : at + length]
    elif how == "exchange":
        to = rng.randrange(size - length + 1)
        block = content[at : at + length]
        changed[at : at + length] = content[to : to + length]
        changed[to : to + length] = block
    elif how == "insert":
        changed[at:at] = rng.randbytes(length)
    elif how == "drop":
        del changed[at : at + length]
    elif how == "empty":
        changed.clear()
    else:
        changed = bytearray(rng.choice(others))
    return how, bytes(changed)


def rewritten(path: Path, rng: random.Random) -> str:
    """Lose or change one entry of a checkpoint, or of the configuration in it, and save it."""
    state = torch.load(path, weights_only=True)
    how = rng.choice(("lose", "change", "text"))
    if how == "text":
        text = bytearray(state["config"].encode())
        text[rng.randrange(len(text))] = rng.randrange(32, 127)
        state["config"] = text.decode()
    else:
        holder: Any = state
        while True:
            if not isinstance(holder, dict) or not holder:
                break
            key = rng.choice(sorted(holder, key=str))
            inner = holder[key]
            if isinstance(inner, dict) and inner and rng.random() < 0.7:
                holder = inner
                continue
            if how == "lose":
                del holder[key]
            else:
                holder[key] = rng.choice((None, 3, "text", [1], {}, torch.zeros(2), float("nan")))
            break
    torch.save(state, path)
    return how


# trial ----------------------------------------------------------------------------------------


class Hang(Exception):
    pass


def stop(*_: Any) -> None:
    raise Hang


def outcome(kind: Kind, expected: str, sprung: Path) -> tuple[str, str]:
    """Read the file and judge what comes of it; return the outcome and a note."""
    signal.alarm(SECONDS)
    try:
        found, note = digest(kind.read()), ""
        result = RIGHT if found == expected else OTHER
    except UserError as error:
        result, note = REFUSED, str(error)
    except Hang:
        result, note = HANG, ""
    except (Exception, SystemExit):
        result, note = TRACEBACK, traceback.format_exc(limit=-4)
    finally:
        signal.alarm(0)
    return (EXECUTED, note) if sprung.exists() else (result, note)


def crafted(sprung: Path) -> list[bytes]:
    """Return files that would run code when read by an unsafe reader."""

    class Trap:
        def __reduce__(self) -> Any:
            return (open, (str(sprung), "w"))

    contents = [pickle.dumps(Trap())]
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save(
            {"format": 1, "config": Trap(), "state_dict": {}}, file, pickle_protocol=protocol
        )
        contents.append(file.getvalue())
    # Writing runs nothing. The trial shows that no reader of ours unpickles what is written here.
    for save in (np.save, np.savez):
        file = io.BytesIO()
        save(file, np.array([Trap()], dtype=object))
        contents.append(file.getvalue())
    contents.append(f"text: !!python/object/apply:open ['{sprung}', w]\n".encode())
    contents.append(f"x choice [open('{sprung}','w')]\n".encode())
    return contents


def main() -> int:
    args = arguments(__doc__, n=10_000, small=150)
    rng = random.Random(args.seed)
    folder = args.output or Path(tempfile.mkdtemp(prefix="damage-"))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, stop)
    kinds = kinds_of(folder, *prepare_files(folder))
    originals = {name: kind.path.read_bytes() for name, kind in kinds.items()}
    expected = {name: digest(kind.read()) for name, kind in kinds.items()}
    sprung = folder / "sprung"
    traps = crafted(sprung)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failures: dict[str, int] = {}
    start = time.perf_counter()

    def judge(name: str, how: str) -> None:
        result, note = outcome(kinds[name], expected[name], sprung)
        sprung.unlink(missing_ok=True)
        counts[name][result] += 1
        silent = result == OTHER and kinds[name].checked
        if silent or result in (TRACEBACK, HANG, EXECUTED):
            last = note.strip().splitlines()[-1:] or [""]
            failures.setdefault(f"{name}, {how}: {result}: {last[0][:150]}\n{note}", 0)
            kept = folder / "failures" / f"{len(failures)}-{kinds[name].path.name}"
            kept.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                kept.write_bytes(kinds[name].path.read_bytes())
        kinds[name].path.write_bytes(originals[name])

    for name, kind in kinds.items():
        if kind.rewrites:
            continue
        for number, content in enumerate(traps):
            kind.path.write_bytes(content)
            judge(name, f"trap {number}")
    drawn = rng.choices(list(kinds), [kind.share for kind in kinds.values()], k=args.n)
    for name in sorted(drawn, key=list(kinds).index):
        kind = kinds[name]
        if kind.rewrites:
            how = rewritten(kind.path, rng)
        else:
            how, content = damaged(originals[name], rng, list(originals.values()))
            kind.path.write_bytes(content)
        judge(name, how)

    print(f"{machine()}; seed {args.seed}; {args.n} damaged files and {len(traps)} crafted ones a")
    print(f"kind that is no checkpoint rewritten; {time.perf_counter() - start:.0f} s\n")
    print(f"| {'file':<22} | " + " | ".join(f"{o:>9}" for o in OUTCOMES) + " |")
    print(f"|{'-' * 24}|" + "|".join("-" * 10 + ":" for _ in OUTCOMES) + "|")
    total: Counter[str] = Counter()
    for name, count in counts.items():
        total += count
        print(f"| {name:<22} | " + " | ".join(f"{count[o]:>9}" for o in OUTCOMES) + " |")
    print(f"| {'all':<22} | " + " | ".join(f"{total[o]:>9}" for o in OUTCOMES) + " |")
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if args.output is None:
        shutil.rmtree(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
