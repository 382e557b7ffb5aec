"""Vectors of product photos by an image model of transformers, such as CLIP, DINOv2 or ResNet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_bbqrec.errors import UserError, pip_install
from recbole_bbqrec.prepare.encoders.chunks import encode_in_chunks, files_of

#: The usual image encoder.
CLIP = "openai/clip-vit-base-patch32"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_CHUNK = 512  # photos of a chunk; an interruption loses at most one chunk
_LARGEST_PIXELS = 100_000_000  # of a photo; larger ones may be made to fill the memory


@dataclass(frozen=True)
class Photos:
    """Photos of a folder, by item token.

    Attributes:
        folder: the folder.
        paths: the file of each token; its name without the suffix is the token.
    """

    folder: Path
    paths: dict[str, Path]

    @classmethod
    def of_folder(cls, folder: Path) -> Photos:
        """Find the photos in a folder, not in those below it.

        Raises:
            UserError: it is no folder, has no photos, or two files of one item.
        """
        if not folder.is_dir():
            raise UserError(f"--images={folder} is no folder; expected one with a photo per item.")
        paths: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if path.stem in paths:
                raise UserError(
                    f"--images={folder}: {paths[path.stem].name} and {path.name} are both of the "
                    f"item {path.stem}; expected one photo an item. Remove one."
                )
            paths[path.stem] = path
        if not paths:
            raise UserError(
                f"--images={folder} has no photos; expected files called ITEM.jpg, where ITEM is "
                f"the raw item token (or {', '.join(SUFFIXES[1:])})."
            )
        return cls(folder, paths)


class ImageEncoder:
    """A loaded model; made by :func:`open_image_encoder`.

    Attributes:
        label: what results call it: the name on the hub, or a folder's last part.
        identity: text that changes with the model.
    """

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.label = Path(name).resolve().name if Path(name).is_dir() else name
        self.identity = json.dumps([name, files_of(Path(name))])
        self._model, self._processor = model.eval(), processor

    def encode(
        self, paths: Sequence[Path], kept: Path | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Return vectors of unit length, float16 [n_photos, width]; zero for unreadable photos.

        Args:
            paths: the photos.
            kept: folder for finished chunks, as in
                :func:`~recbole_bbqrec.prepare.encoders.chunks.encode_in_chunks`.
            batch_size: photos a step of the model.

        Raises:
            UserError: no photo of a chunk can be read.
        """
        states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
        return encode_in_chunks(
            paths,
            [self.identity, *map(json.dumps, states)],
            lambda part: self._chunk(part, batch_size),
            kept,
            _CHUNK,
            "photos",
        )

    def _chunk(self, paths: Sequence[Path], batch_size: int) -> np.ndarray:
        photos = {n: photo for n, path in enumerate(paths) if (photo := read_photo(path))}
        if not photos:
            raise UserError(
                f"None of the photos {paths[0]} to {paths[-1].name} can be read; expected JPEG, "
                "PNG, WebP, BMP, GIF or TIFF."
            )
        parts, numbers = [], list(photos)
        for start in range(0, len(numbers), batch_size):
            batch = [photos[n] for n in numbers[start : start + batch_size]]
            parts.append(self._vectors(batch))
        vectors = np.concatenate(parts)
        rows = np.zeros((len(paths), vectors.shape[1]), dtype=np.float16)
        rows[numbers] = vectors
        return rows

    def _vectors(self, photos: list[Any]) -> np.ndarray:
        import torch  # takes seconds, which other sources need not wait for

        device = next(self._model.parameters()).device
        pixels = self._processor(images=photos, return_tensors="pt")["pixel_values"].to(device)
        # CLIP and SigLIP have a method for images alone.
        read = getattr(self._model, "get_image_features", self._model)
        with torch.no_grad():
            found = read(pixel_values=pixels)
        if not isinstance(found, torch.Tensor):
            pooled = getattr(found, "pooler_output", None)
            found = found.last_hidden_state.mean(1) if pooled is None else pooled
        vectors = torch.nn.functional.normalize(found.flatten(1).float(), dim=1)
        return vectors.cpu().numpy().astype(np.float16)


def read_photo(path: Path) -> Any:
    """Return a photo as an RGB picture of Pillow; None if it cannot be read or is huge."""
    from PIL import Image

    try:
        with Image.open(path) as photo:
            if photo.width * photo.height > _LARGEST_PIXELS:
                return None
            return photo.convert("RGB")
    except Exception:  # of many kinds, for damaged files
        return None


def open_image_encoder(name: str) -> ImageEncoder:
    """Load an image model of transformers, on the GPU if there is one.

    A model in the cache is loaded without asking the network. Only safetensors are read, so no
    code comes from outside.

    Raises:
        UserError: transformers or Pillow is not installed, or the model cannot be loaded.
    """
    try:
        import PIL  # noqa: F401
        import torch
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise UserError(
            f"Image encoder {name!r} needs transformers and Pillow. Run {pip_install('images')}, "
            "or give vectors with --features=image=FILE.npy,ITEMS.txt."
        ) from error

    def load(**settings: Any) -> tuple[Any, Any]:
        model = AutoModel.from_pretrained(name, use_safetensors=True, **settings)
        return model, AutoImageProcessor.from_pretrained(name, **settings)

    try:
        try:
            model, processor = load(local_files_only=True)
        except Exception:
            model, processor = load()
    except Exception as error:  # its dependencies raise many kinds
        raise UserError(
            f"Image encoder {name!r} cannot be loaded ({' '.join(str(error).split())}); expected "
            "an image model of transformers with safetensors, by name or folder. Without a "
            "network, fetch it on a machine that has one (hf download NAME --local-dir DIR) and "
            "give --image_encoder=DIR."
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return ImageEncoder(name, model.to(device), processor)
