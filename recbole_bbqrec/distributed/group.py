"""The processes of a run: those that torchrun started, or one alone.

Every function here is the identity for a process alone, so that nothing else asks.
"""

from __future__ import annotations

import datetime
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable, TypeVar

import torch
import torch.distributed as dist

from recbole_bbqrec.errors import LostProcessError, UserError

Value = TypeVar("Value")

#: A process that does not answer for so long counts as lost. Process 0 works alone for seconds at
#: most; a process that has died is noticed at once, by the others or by torchrun.
TIMEOUT = datetime.timedelta(minutes=10)
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_GO_ON = "The same command with --resume=auto goes on after the last finished epoch."
_REPORTED = "reported"  # key of the store: the number of processes that gave a reason for the end

_store: Any = None
_alone = False  # True while process 0 does what the others wait for


def asked_for() -> bool:
    """Return True if torchrun started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def running() -> bool:
    """Return True if this process is one of several that have joined."""
    return not _alone and _joined()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if running() else 1


def is_main() -> bool:
    """Return True for the process that writes, logs and shows progress."""
    return rank() == 0


def device_of(device: torch.device) -> torch.device:
    """Return the device of this process: a GPU of its own where ``device`` is one.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """
    if not running() or device.type != "cuda":
        return device
    local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= found:
        raise UserError(
            f"torchrun started a process {local} on {socket.gethostname()}, which shows {found} "
            f"GPUs; expected one for each process. Give --nproc_per_node={found}, or show more "
            "with CUDA_VISIBLE_DEVICES."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


# joining and leaving --------------------------------------------------------------------------


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, for a block; without torchrun do nothing.

    After a failure the group stays: the process reports it, and ends.

    Raises:
        UserError: a variable of torchrun is missing or wrong, or the processes cannot meet.
    """
    if not asked_for() or _joined():
        yield
        return
    _join()
    yield
    _on_sigterm(signal.SIG_DFL)
    dist.destroy_process_group()


def _join() -> None:
    global _store
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    numbers = {name: os.environ.get(name, "") for name in _VARIABLES if name != "MASTER_ADDR"}
    wrong = [name for name, value in numbers.items() if not value.isdigit()]
    if missing or wrong:
        name = (missing or wrong)[0]
        raise UserError(
            f"The variable WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, but {name} is "
            f"{os.environ.get(name, '')!r}; several processes need {', '.join(_VARIABLES)}, which "
            "torchrun sets. Start with torchrun, or unset WORLD_SIZE."
        )
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    if not dist.is_available():
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this build of torch has no "
            "torch.distributed. Install another one, or start without torchrun."
        )
    # Tensors of a GPU go by NCCL, plain values and tensors of the CPU by gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        _store, number, size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
        dist.init_process_group(
            backend, store=_store, rank=number, world_size=size, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The {os.environ['WORLD_SIZE']} processes cannot meet at {where}: {_first(error)}. "
            "If another program uses the port, give another one with --master_port; otherwise see "
            "that every machine reaches the first one there."
        ) from error
    _on_sigterm(_ended)


def _on_sigterm(handler: Any) -> None:
    """Set what SIGTERM does, which torchrun sends when another process has failed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _ended(number: int, frame: Any) -> None:
    _on_sigterm(signal.SIG_IGN)  # this process is ending
    raise LostProcessError(
        "This process was ended from outside (SIGTERM), as torchrun does when another process of "
        f"the run has ended. {_GO_ON}"
    )


def reports(error: BaseException) -> bool:
    """Return True if this process should report ``error``: the first that gives a reason does."""
    if not asked_for():
        return True
    if _store is None:  # they never met
        return os.environ.get("RANK", "0") in ("", "0")
    try:
        return bool(_store.add(_REPORTED, 1) == 1)
    except RuntimeError:  # process 0 kept the store and has ended
        return is_main() or isinstance(error, LostProcessError)


# plain values ---------------------------------------------------------------------------------


def same(value: Value) -> Value:
    """Return the value that process 0 has, anything that can be pickled."""
    if not running():
        return value
    box = [value if is_main() else None]
    talk(dist.broadcast_object_list, box, src=0)
    return box[0]  # type: ignore[return-value]


def from_main(function: Callable[[], Value]) -> Value:
    """Call ``function`` in process 0 alone, as if it were alone, and return its value everywhere.

    Errors of a user or of the system are raised everywhere, too.
    """
    global _alone
    if not running():
        return function()
    answer: Any = None
    if is_main():
        _alone = True
        try:
            answer = function(), None
        except (UserError, OSError) as error:
            answer = None, error
        finally:
            _alone = False
    value, failure = same(answer)
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]


def gathered(value: Value) -> list[Value]:
    """Return the values of all processes, in their order."""
    if not running():
        return [value]
    values: list[Any] = [None] * world_size()
    talk(dist.all_gather_object, values, value)
    return values


def check_equal(values: Mapping[str, Any]) -> None:
    """Compare ``values``, what is compared -> value, between the processes.

    Raises:
        UserError: process 0 has another value than some other.
    """
    all_values = gathered((socket.gethostname(), dict(values)))
    (first, expected), *others = all_values
    for number, (host, found) in enumerate(others, start=1):
        for name in {**expected, **found}:
            if expected.get(name) != found.get(name):
                raise UserError(
                    f"The processes of this run differ in {name}: process {number} on {host} has "
                    f"{found.get(name)!r}, process 0 on {first} has {expected.get(name)!r}. Give "
                    "all of them the same files, options and versions."
                )


def talk(collective: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call an operation of torch.distributed; every process must come to the same one.

    Raises:
        LostProcessError: another process has ended, or has not come within :data:`TIMEOUT`.
    """
    try:
        collective(*arguments, **named)
    except RuntimeError as error:
        _on_sigterm(signal.SIG_IGN)  # this process is ending: let it say why
        raise LostProcessError(
            f"Another process of this run has ended or does not answer ({_first(error)}). {_GO_ON}"
        ) from error


def _first(error: BaseException) -> str:
    """Return the first line of a message, without torch's place in its source."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rpartition("] ")[2].rstrip(".")
