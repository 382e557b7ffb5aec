"""The two steps of the network as ONNX files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.portable.model import DECODER, ENCODER, PortableModel
from recbole_bbqrec.portable.reference import Decode, Encode


def require_onnx() -> None:
    """Raise a UserError unless the libraries that write ONNX files are installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs {error.name}: {pip_install('onnx')}.") from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, result: str) -> None:
    """Write a program as an ONNX file; its inputs have the names of the step's arguments.

    Weights beyond 2 GiB, which no ONNX file holds, go to a file beside it.
    """
    with _quiet():
        converted: Any = torch.onnx.export(
            program, dynamo=True, verbose=False, output_names=[result]
        )
        converted.save(str(path))


def read_onnx(model: PortableModel, folder: str | Path) -> tuple[Encode, list[Decode]]:
    """Return the ONNX files in ``folder`` as what :func:`~.reference.recommend` takes.

    onnxruntime computes them on the CPU.

    Raises:
        UserError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX files need {error.name}: pip install onnxruntime.") from error
    folder, width = Path(folder), model.generator.config.max_history
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: the exporter leaves initializers that nothing reads

    def opened(name: str) -> Any:
        path = (folder / name).with_suffix(".onnx")
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def step(name: str) -> Decode:
        session = opened(name)

        def decode(states: Tensor, length: Tensor, prefix: Tensor) -> Tensor:
            given = {"states": states, "length": length, "prefix": prefix}
            read = {name: tensor.numpy() for name, tensor in given.items()}
            return torch.from_numpy(session.run(["logits"], read)[0])

        return decode

    encoder = opened(ENCODER)

    def encode(items: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(items, (0, width - len(items)))
        return torch.from_numpy(encoder.run(["states"], {"items": padded.numpy()})[0])

    levels = range(1, model.generator.config.levels + 1)
    return encode, [step(DECODER.format(level=level)) for level in levels]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter logs of operators that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
