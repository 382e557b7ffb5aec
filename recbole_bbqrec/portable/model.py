"""A folder that holds an exported model, and the model read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from recbole_bbqrec.errors import UserError, did_you_mean, listed
from recbole_bbqrec.generator.inference.ranking import rank
from recbole_bbqrec.generator.items.catalogue import Catalogue
from recbole_bbqrec.generator.items.neighbour_bonus import Neighbours
from recbole_bbqrec.generator.network.seq2seq import Generator
from recbole_bbqrec.generator.settings import GeneratorSettings
from recbole_bbqrec.runtime import resolve_precision

FORMAT = 1
CONFIG, WEIGHTS, ITEMS = "config.json", "model.safetensors", "items.txt"
ENCODER, DECODER = "encoder.pt2", "decoder_{level}.pt2"
_GENERATOR, _NEIGHBOURS = "generator.", "neighbours."


@dataclass(frozen=True)
class PortableModel:
    """A network, the items that it ranks, and how.

    Attributes:
        generator: in evaluation mode.
        catalogue: semantic IDs, vectors, features and neighbours of the items.
        tokens: raw token of each item id; index 0 is "[PAD]".
        num_beams: width of the beam.
        mask_history: True leaves the history out of the lists.
        precision: auto, float32 or bfloat16.
    """

    generator: Generator
    catalogue: Catalogue
    tokens: tuple[str, ...]
    num_beams: int
    mask_history: bool
    precision: str = "auto"

    @classmethod
    def load(cls, folder: str | Path) -> PortableModel:
        """Read the folder that ``export`` wrote.

        Raises:
            UserError: a file is absent, damaged or of another version.

        >>> from recbole_bbqrec.portable.model import PortableModel
        >>> model = PortableModel.load("exported")  # doctest: +SKIP
        >>> model.recommend([["i0398", "i0395"]], k=2)  # doctest: +SKIP
        [[('i0102', -2.1), ('i0044', -2.4)]]
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
            tokens = (folder / ITEMS).read_text(encoding="utf-8").splitlines()
            if config["format"] != FORMAT:
                raise ValueError(f"format {config['format']!r}, this version reads {FORMAT}")
            return cls._of(config, tensors, tokens)
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise UserError(
                f"{folder} holds no exported model that can be read: {error}. Expected {CONFIG}, "
                f"{WEIGHTS} and {ITEMS} as `python -m recbole_bbqrec export` writes them."
            ) from error

    @classmethod
    def _of(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokens: Sequence[str]
    ) -> PortableModel:
        generator = Generator(GeneratorSettings(**config["generator"]))
        start = len(_GENERATOR)
        weights = {name[start:]: t for name, t in tensors.items() if name.startswith(_GENERATOR)}
        generator.load_state_dict(weights)
        neighbours = None
        if f"{_NEIGHBOURS}pointer" in tensors:
            near = {name: tensors[_NEIGHBOURS + name] for name in ("pointer", "items", "values")}
            neighbours = Neighbours(**near, decay=float(config["neighbour_decay"]))
        catalogue = Catalogue.build(
            tensors["codes"], tensors["vectors"], generator.config.codebook_size,
            features=tensors.get("features"), neighbours=neighbours,
        )  # fmt: skip
        if len(tokens) + 1 != catalogue.n_items:
            raise ValueError(f"{len(tokens)} items, {catalogue.n_items - 1} semantic IDs")
        return cls(
            generator.eval(), catalogue, ("[PAD]", *tokens), int(config["num_beams"]),
            bool(config["mask_history"]), str(config["precision"]),
        )  # fmt: skip

    def save(self, folder: str | Path, vectors: Tensor, about: Mapping[str, Any]) -> None:
        """Write the three files to ``folder``.

        ``vectors`` float32 [n_items, V] are those of phase one, whose length the catalogue drops;
        ``about`` is added to config.json, under keys of its own.
        """
        folder, near, codes = Path(folder), self.catalogue.neighbours, self.catalogue.codes
        tensors = {_GENERATOR + name: t for name, t in self.generator.state_dict().items()}
        tensors.update(codes=codes, vectors=vectors)
        if self.catalogue.features is not None:
            tensors["features"] = self.catalogue.features
        if near is not None:
            for name in ("pointer", "items", "values"):
                tensors[_NEIGHBOURS + name] = getattr(near, name)
        config = {
            "format": FORMAT,
            **about,
            "generator": asdict(self.generator.config),
            "num_beams": self.num_beams,
            "mask_history": self.mask_history,
            "precision": self.precision,
            "neighbour_decay": None if near is None else near.decay,
        }
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        (folder / WEIGHTS).write_bytes(save(whole, metadata={"format": "pt"}))
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        text = "".join(f"{token}\n" for token in self.tokens[1:])
        (folder / ITEMS).write_text(text, encoding="utf-8")

    def ids(self, history: Sequence[str], name: str = "history") -> list[int]:
        """Return the ids of the last items of a history of tokens, as many as the network reads.

        Raises:
            UserError: an item is unknown, there is none, or ``name``, the argument, is no list.
        """
        given = listed(name, history)
        latest = [str(token) for token in given[-self.generator.config.max_history :]]
        if not latest:
            raise UserError("A history is empty; expected one item or more. Leave it out.")
        unknown = [token for token in latest if token not in self._id_of]
        if unknown:
            near = did_you_mean(unknown[0], self._id_of)
            raise UserError(f"Unknown item {unknown[0]!r} of {len(self.tokens) - 1:,}.{near}")
        return [self._id_of[token] for token in latest]

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10
    ) -> list[list[tuple[str, float]]]:
        """Return the k best next items after each history, best first, with their scores.

        Histories are lists of raw tokens, oldest first. Fewer than k come back where fewer items
        are left.

        Raises:
            UserError: as :meth:`ids`.
        """
        rows = [
            self.ids(history, f"histories[{number}]")
            for number, history in enumerate(listed("histories", histories))
        ]
        if not rows:
            return []
        items = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for place, row in enumerate(rows):
            items[place, : len(row)] = torch.tensor(row)
        beams = min(max(self.num_beams, k), self.catalogue.n_items - 1)
        dtype = resolve_precision(self.precision, items.device)
        ids, scores = rank(
            self.generator, self.catalogue, items, beams, dtype,
            excluded=items if self.mask_history else None,
        )  # fmt: skip
        return [
            [(self.tokens[i], s) for i, s in zip(row, values) if s > -torch.inf]
            for row, values in zip(ids[:, :k].tolist(), scores[:, :k].float().tolist())
        ]

    @property
    def _id_of(self) -> Mapping[str, int]:
        if "_ids" not in self.__dict__:
            self.__dict__["_ids"] = {t: i for i, t in enumerate(self.tokens) if i > 0}
        ids: Mapping[str, int] = self.__dict__["_ids"]
        return ids
