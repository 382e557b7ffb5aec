"""Runs over a Ray cluster, each a task with its own CPUs, GPUs and memory.

Ray's core alone is used (tasks, waiting, cancelling), which RecBole's old pin and today's Ray
share. The run store must lie in a folder that all nodes share.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_bbqrec.atomic import write_text
from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.experiment.store.launch import Ended, Stop, error_of
from recbole_bbqrec.experiment.store.process import ASSIGNED_GPUS, run_worker, variables
from recbole_bbqrec.experiment.store.run_key import code_version

LOCAL = "local"  # start Ray on this machine
_POLL_SECONDS = 1.0
_END_SECONDS = 20.0  # for cancelled tasks to end their processes
_LOCAL_STORE_BYTES = 80 * 2**20  # of Ray's object store; tasks only exchange paths


@dataclass(frozen=True)
class RunNeeds:
    """Resources that Ray reserves for each run.

    Attributes:
        cpus: CPUs. PyTorch uses as many threads unless ``num_threads`` is given.
        gpus: GPUs; a fraction shares one.
        memory: bytes; None reserves nothing.
        at_once: how many runs at most are started at the same time; None for as many as the cluster
            has room for. A cluster that grows by demand needs the number that it may grow to.
    """

    cpus: float = 1
    gpus: float = 0
    memory: int | None = None
    at_once: int | None = None


class RayCluster:
    """Starts runs as tasks of a Ray cluster.

    Args:
        address: of the cluster, ``auto`` for the one that this machine belongs to, or ``local``.
        root: folder of the run store, shared by all nodes.
        needs: what each run gets.

    Raises:
        UserError: Ray is not installed, no cluster answers, no node has what a run needs, or a node
            does not see ``root`` or has another version of the code.
    """

    def __init__(self, address: str, root: Path, needs: RunNeeds) -> None:
        self._ray, self.needs = _connect(address), needs
        self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
        if not self.slots:
            raise UserError(_no_room(needs, [node["Resources"] for node in self._nodes]))
        self._check_nodes(root)

    @property
    def slots(self) -> int:
        room = sum(_room(self.needs, node["Resources"]) for node in self._nodes)
        return min(room, self.needs.at_once or room) if room else 0

    def launch(self, directories: Iterable[Path], stop: Stop) -> Iterator[Ended]:
        ray, needs = self._ray, self.needs
        memory = {} if needs.memory is None else {"memory": needs.memory}
        task = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, **memory)(_make_run)
        waiting = iter(directories)
        running: dict[Any, Path] = {}
        at_once = needs.at_once or self.slots
        try:
            while True:
                while len(running) < at_once:
                    directory = next(waiting, None)
                    if directory is None:
                        break
                    running[task.remote(str(directory), variables())] = directory
                if not running:
                    return
                done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                for reference in done:
                    yield self._ended(reference, running.pop(reference))
                for reference, directory in running.items():
                    if stop(directory):
                        ray.cancel(reference)
        finally:
            for reference in running:
                ray.cancel(reference)  # interrupts the task, which ends its process
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=_END_SECONDS)

    def _ended(self, reference: Any, directory: Path) -> Ended:
        try:
            code, seconds = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(directory, 0.0, "The run was stopped.")
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            return Ended(directory, 0.0, f"Ray lost the run: {reason[0]}")
        return Ended(directory, seconds, error_of(directory, code))

    def _check_nodes(self, root: Path) -> None:
        """Raise a UserError if a node does not share ``root`` or this version of the code."""
        probe = root / f".ray-{uuid.uuid4().hex}"
        write_text(probe, "A run store shared by all nodes of a Ray cluster has this file.\n")
        try:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            asked = {
                node["NodeManagerAddress"]: self._ray.remote(num_cpus=0)(_look)
                .options(scheduling_strategy=strategy(node["NodeID"], soft=False))
                .remote(str(probe))
                for node in self._nodes
            }
            for name, reference in asked.items():
                try:
                    sees, version = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                    raise UserError(
                        f"Ray node {name} cannot run this package: {last[0]}. Install the same "
                        "environment on all nodes."
                    ) from error
                if not sees:
                    raise UserError(
                        f"Ray node {name} does not see the run store {root}. Give --runs a folder "
                        "that all nodes share."
                    )
                if version != code_version():
                    raise UserError(
                        f"Ray node {name} has another version of recbole_bbqrec than this machine. "
                        "Install the same on all nodes."
                    )
        finally:
            probe.unlink()


def _make_run(directory: str, environment: Mapping[str, str]) -> tuple[int, float]:
    """Make the run in ``directory`` on this node; return exit code and seconds."""
    import ray

    start = time.perf_counter()
    gpus = ",".join(map(str, ray.get_gpu_ids()))
    assigned = {ASSIGNED_GPUS: gpus} if gpus else {}
    code = run_worker(Path(directory), environment={**environment, **assigned})
    return code, time.perf_counter() - start


def _look(probe: str) -> tuple[bool, str]:
    return os.path.isfile(probe), code_version()


def _connect(address: str) -> Any:
    """Connect to a cluster, or start Ray here, and return its module."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(
            f"Option `--ray` needs Ray; install it ({pip_install('ray')}) or leave the option out."
        ) from error
    # Nodes import this package as this machine does.
    settings: dict[str, Any] = {
        "runtime_env": {"env_vars": variables()}, "log_to_driver": False, "logging_level": "ERROR",
    }  # fmt: skip
    if address == LOCAL:
        settings.update(include_dashboard=False, object_store_memory=_LOCAL_STORE_BYTES)
    try:
        ray.init(address, ignore_reinit_error=True, **settings)
    except Exception as error:  # of many kinds; Ray documents none
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"Option `--ray` is {address}, but no Ray cluster answers there: {reason[0]} Start one "
            "(`ray start --head`), correct the address, or give --ray alone for this machine."
        ) from error
    return ray


def _room(needs: RunNeeds, resources: Mapping[str, float]) -> int:
    """Return how many runs a node can hold at the same time."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory or 0)}
    return int(min(resources.get(kind, 0.0) / n for kind, n in wanted.items() if n))


def _no_room(needs: RunNeeds, nodes: list[dict[str, float]]) -> str:
    has = "; ".join(
        f"{n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs, {n.get('memory', 0) / 2**30:.1f} GiB"
        for n in nodes
    )
    memory = "" if needs.memory is None else f", {needs.memory / 2**30:g} GiB"
    return (
        f"No node of the Ray cluster has what a run needs ({needs.cpus:g} CPUs, {needs.gpus:g} GPUs"
        f"{memory}); the nodes have {has}. Lower --ray_cpus, --ray_gpus or --ray_memory."
    )
