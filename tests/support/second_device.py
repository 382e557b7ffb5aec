"""A second device for tests on machines without a GPU: the CPU, made to keep its tensors apart.

Inside :func:`second_device` the device named :data:`DEVICE` holds numbers. Its tensors wrap CPU
tensors that do the work, so that results can be compared with the CPU's, but they go by torch's
rules for a GPU: an operator that meets one of them and a CPU tensor raises the RuntimeError that
CUDA raises, and a CPU generator cannot draw there. Torch's "meta" device lends its name, for it is
in every build and autograd knows it; code that asks whether the device is the CPU hears no.

:func:`waits` counts the operators for which a CPU would have to wait until the device has
computed all before them: those that tell it a number, and those whose result is as large as the
numbers say.

What it cannot show: kernels that a GPU lacks or that round otherwise, streams, and autocast, which
torch has not for this device: everything is computed in the dtype it has.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_COPIES = {_aten.copy_, _aten._to_copy}  # from one device to the other
#: Operators whose second argument, indices, may lie on the CPU.
_INDEXING = {
    _aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_,
}  # fmt: skip
#: Elsewhere a CPU tensor without dimensions counts as a number, but not as a part.
_JOINS = {_aten.cat, _aten.stack}
_FUSED = "torch.optim.optimizer._get_fused_kernels_supported_devices"


#: Results of unknown size or on the CPU.
_WAITING = {
    _aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten._unique, _aten._unique2,
    _aten.unique_dim, _aten.unique_consecutive, _aten.equal, _aten.is_nonzero, _aten.bincount,
    _aten.multinomial,
}  # fmt: skip
_waits: Counter[str] | None = None


class DeviceTensor(Tensor):
    """A tensor on the second device; ``held`` is the CPU tensor with its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        with torch.inference_mode(False):  # a view of an ordinary tensor must be one, too
            out = Tensor._make_wrapper_subclass(
                cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
                dtype=held.dtype, device=DEVICE,
            )  # fmt: skip
        out.held = held
        return out

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    # Lists as indices would become tensors without numbers, as torch.tensor() makes them.
    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def tolist(self) -> Any:
        _note_wait("tolist")
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held!r})"


class _Dispatch(TorchDispatchMode):
    """Dispatch of operators without an argument on the device: factories, and moves to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator on CPU tensors; its results lie where CUDA would have them."""
    tensors: list[Tensor] = []
    _each(tensors.append, (*args, *kwargs.values()))
    if any(x.is_meta and not isinstance(x, DeviceTensor) for x in tensors):
        raise NotImplementedError(f"{func} of a tensor that was made without the dispatcher")
    there = ours = any(isinstance(x, DeviceTensor) for x in tensors)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": _CPU}
    if not (there or ours):
        return func(*args, **kwargs)
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{DEVICE}' device type for generator but found 'cpu'")
    if ours:
        _check(func, args, tensors)
    if _is_waiting(func, args, kwargs, ours, there):
        _note_wait(str(func))
    out = func(*_each(_held, args), **{name: _each(_held, x) for name, x in kwargs.items()})
    # An operator returns what it has written into: then that very tensor is the result.
    given = {id(_held(x)): x for x in tensors}

    def placed(x: Tensor) -> Tensor:
        known = given.get(id(x))
        if known is None:
            return DeviceTensor(x) if there else x
        if known.shape != x.shape or known.stride() != x.stride():
            with torch._C._DisableTorchDispatch():  # squeeze_() and the like, on the wrapper alone
                func(*args, **kwargs)
        return known

    return _each(placed, out)


def _each(function: Callable[[Tensor], Any], x: Any) -> Any:
    """``x`` with what the function makes of each tensor in it."""
    if isinstance(x, Tensor):
        return function(x)
    return type(x)(_each(function, part) for part in x) if type(x) in (tuple, list) else x


def _without_lists(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_without_lists(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _held(x: Tensor) -> Tensor:
    return x.held if isinstance(x, DeviceTensor) else x


def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise RuntimeError for what CUDA does not take."""
    packet = func.overloadpacket
    if packet in _COPIES:
        return
    if packet in _INDEXING and isinstance(args[0], DeviceTensor):
        tensors = [args[0], *(x for x in args[2:3] if isinstance(x, Tensor))]
    first = func._schema.arguments[:1]
    written = args[0] if first and first[0].is_write else None
    for x in tensors:
        number = x.dim() == 0 and packet not in _JOINS and x is not written
        if not (number or isinstance(x, DeviceTensor)):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{DEVICE} and cpu! (in {func})"
            )


def _is_waiting(func: Any, args: Any, kwargs: Any, ours: bool, there: bool) -> bool:
    """True if a CPU has to wait for the result; ``ours``: of a tensor on the device."""
    packet = func.overloadpacket
    if packet in _COPIES:  # a source on the CPU is copied at once but when it is pinned
        source = args[1] if packet is _aten.copy_ else args[0]
        if isinstance(source, DeviceTensor):
            return not there or (packet is _aten.copy_ and not isinstance(args[0], DeviceTensor))
        later = kwargs.get("non_blocking") or (packet is _aten.copy_ and any(args[2:3]))
        return source.dim() > 0 and not later
    if packet is _aten.repeat_interleave:
        return ours and kwargs.get("output_size") is None
    if packet in _INDEXING and ours:
        given = [x for x in args[1] if x is not None]
        return any(x.dtype == torch.bool or not isinstance(x, DeviceTensor) for x in given)
    return ours and packet in _WAITING


def _note_wait(what: str) -> None:
    if _waits is None:
        return
    frame: Any = sys._getframe()
    while frame.f_back is not None and "/recbole_bbqrec/" not in frame.f_code.co_filename:
        frame = frame.f_back
    _waits[f"{what} in {frame.f_code.co_filename.split('/')[-1]}:{frame.f_lineno}"] += 1


@contextlib.contextmanager
def waits() -> Iterator[Counter[str]]:
    """Count the waits of a CPU for the device while the block runs, by operator and line."""
    global _waits
    _waits = counted = Counter()
    try:
        yield counted
    finally:
        _waits = None


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """Give the block a device to which tensors can be moved."""
    autocast, enabled, make = torch.autocast, torch.is_autocast_enabled, torch.tensor

    def no_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        if device_type == DEVICE.type:
            return contextlib.nullcontext()
        return autocast(device_type, *args, **kwargs)

    def not_enabled(device_type: str = "cpu") -> bool:
        return device_type != DEVICE.type and enabled(device_type)

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        # On "meta" it would leave the numbers out, and not ask the dispatcher.
        return make(data, **kwargs) if device is None else make(data, **kwargs).to(device)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("torch.autocast", no_autocast))
        stack.enter_context(mock.patch("torch.is_autocast_enabled", not_enabled))
        stack.enter_context(mock.patch("torch.tensor", tensor))
        stack.enter_context(mock.patch(_FUSED, lambda: ["cpu", "cuda", DEVICE.type]))
        stack.enter_context(_Dispatch())
        yield DEVICE
