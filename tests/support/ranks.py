"""Work of a test in several processes: ``torchrun -m tests.support.ranks FOLDER``.

``jobs.json`` in the folder lists runs, {name, model, options}; each gets a folder of its own.
Every process writes ``<rank>.json``: the results of the runs, and values of the primitives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from recbole_bbqrec.distributed import group, sums
from recbole_bbqrec.errors import UserError
from tests.support.contract import working_in
from tests.support.runs import ROOT


def torchrun(*arguments: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Start two processes of one thread each, and wait for them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*launcher, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def primitives() -> dict[str, Any]:
    """Return what the primitives give in this process, as plain values."""
    me, rows = group.rank(), torch.arange(10.0).view(5, 2)
    mine = rows[sums.part()].clone().requires_grad_()
    every = sums.rows_of_all(mine, 5)
    ((me + 1) * every).sum().backward()  # of both processes: a weight of 1 + 2
    layer = torch.nn.Linear(2, 1, bias=False)
    unused, only_here = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    layer.weight.grad = torch.full((1, 2), float(me + 1))
    only_here.grad = torch.ones(1) if me == 0 else None
    sums.sum_gradients([layer.weight, unused, only_here])
    with torch.no_grad():
        layer.weight.fill_(me + 7)
    sums.synchronise(layer)
    return {
        "rank": me,
        "rows": every.tolist(),
        "gradient": mine.grad.tolist(),
        "mean": float(sums.mean(torch.arange(2.0 + me))),
        "own": sums.own_of(torch.tensor([[True, False], [True, True], [False, True]])).tolist(),
        "gradients": [layer.weight.grad.tolist(), unused.grad, only_here.grad.tolist()],
        "weight": layer.weight.tolist(),
        "of main": sums.of_main(torch.tensor([me])).tolist(),
        "same": group.same({"rank": me}),
        "alone": group.from_main(lambda: [group.running(), group.rank()]),
        "error": _message(lambda: group.from_main(_refuse)),
        "differ": _message(lambda: group.check_equal({"version": me, "data": "same"})),
    }


def _refuse() -> None:
    raise UserError(f"refused in {group.rank()}")


def _message(call: Any) -> str:
    try:
        call()
    except UserError as error:
        return str(error)
    return "no error"


def die_in_phase_two() -> None:
    """Let process 1 be killed in the second epoch of phase two."""
    from recbole_bbqrec.trainer.phases.generate_phase import GeneratePhase

    train = GeneratePhase.train_epoch

    def killed(self: Any, epoch: int, on_step: Any) -> None:
        if epoch == 1 and group.rank() == 1:
            Path("killed").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        train(self, epoch, on_step)

    GeneratePhase.train_epoch = killed  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Do the jobs of ``folder``."""
    from recbole_bbqrec.quick_start import run

    results: dict[str, Any] = {}
    with group.processes():
        results["primitives"] = primitives()
        for job in json.loads((folder / "jobs.json").read_text()):
            with working_in(folder / job["name"]):
                results[job["name"]] = run(job["model"], "Mini", overrides=job["options"])
        (folder / f"{group.rank()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    if os.environ.get("DIES"):
        die_in_phase_two()
        from recbole_bbqrec.cli.main import main as command

        sys.exit(command(sys.argv[1:]))
    main(Path(sys.argv[1]))
