"""The two steps of the network as programs of ``torch.export``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_bbqrec.portable.model import DECODER, ENCODER, PortableModel
from recbole_bbqrec.portable.onnx_files import write_onnx
from recbole_bbqrec.portable.reference import Decode, DecoderStep, Encode, EncoderStep

_EXAMPLE_BEAMS = 3  # of the tracing; the number is free in the program


def write_programs(model: PortableModel, folder: str | Path, onnx: bool = False) -> str | None:
    """Write the encoder and each level's decoder step; return why not, or None.

    ``onnx`` writes each as an ONNX file, too: ``encoder.onnx``, ``decoder_1.onnx`` and so on.
    The encoder takes exactly ``max_history`` items, padded with 0 on the right, which only a causal
    encoder leaves out of sight.
    """
    folder, config = Path(folder), model.generator.config
    if config.history_encoding != "causal":
        return "the encoder is bidirectional, and a program of fixed length would see the padding"
    items = torch.ones(config.max_history, dtype=torch.int64)
    beams = torch.export.Dim("beams", min=1, max=4096)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        encoder = EncoderStep(model).eval()
        _write(torch.export.export(encoder, (items,)), folder / ENCODER, onnx, "states")
        states, length = encoder(items), torch.tensor(2)
        for level in range(config.levels):
            prefix = torch.zeros(_EXAMPLE_BEAMS, level, config.n_signals, dtype=torch.int64)
            program = torch.export.export(
                DecoderStep(model).eval(),
                (states, length, prefix),
                dynamic_shapes=({}, None, {0: beams}),
            )
            _write(program, folder / DECODER.format(level=level + 1), onnx, "logits")
    return None


def _write(program: torch.export.ExportedProgram, path: Path, onnx: bool, result: str) -> None:
    torch.export.save(program, path)
    if onnx:
        write_onnx(program, path.with_suffix(".onnx"), result)


def read_programs(model: PortableModel, folder: str | Path) -> tuple[Encode, list[Decode]]:
    """Return the programs in ``folder`` as what :func:`~.reference.recommend` takes."""
    folder, width = Path(folder), model.generator.config.max_history
    encoder: Any = torch.export.load(folder / ENCODER).module()

    def encode(items: Tensor) -> Tensor:
        states: Tensor = encoder(torch.nn.functional.pad(items, (0, width - len(items))))
        return states

    steps: list[Decode] = [
        torch.export.load(folder / DECODER.format(level=level + 1)).module()
        for level in range(model.generator.config.levels)
    ]
    return encode, steps
