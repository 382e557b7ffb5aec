"""McAuley's files of 2014: names by category, mirrors and sizes.

The collection: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html. Cite He and McAuley
(WWW 2016) and McAuley et al. (SIGIR 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

#: Our name of a data set -> its category's name in the file names.
CATEGORIES = {
    "Beauty": "Beauty",
    "Sports": "Sports_and_Outdoors",
    "Clothing": "Clothing_Shoes_and_Jewelry",
    "Toys": "Toys_and_Games",
}
_REVIEWS, _META, _IMAGES = "reviews_{}_5.json.gz", "meta_{}.json.gz", "image_features_{}.b"

# Rough, for messages only: a download is checked against the size that the server gives.
_GIGABYTES = {
    "Beauty": ("0.05", "0.1", "4"),
    "Sports": ("0.1", "0.2", "9"),
    "Clothing": ("0.05", "0.3", "25"),
    "Toys": ("0.05", "0.2", "6"),
}


@dataclass(frozen=True)
class Mirror:
    """A server with the collection's layout; ``images``: True if it has the image features."""

    base: str
    images: bool = True


#: In the order in which they are tried.
MIRRORS = (
    Mirror("https://snap.stanford.edu/data/amazon/productGraph"),
    Mirror("http://snap.stanford.edu/data/amazon/productGraph"),  # its TLS is reset at times
    Mirror("https://mcauleylab.ucsd.edu/public_datasets/data/amazon", images=False),
)


@dataclass(frozen=True)
class RawFile:
    """One file: its name, path below a mirror's base, and rough size in GB."""

    name: str
    path: str
    gigabytes: str
    images: bool = False

    def urls(self, mirrors: tuple[Mirror, ...] = MIRRORS) -> list[str]:
        """Return addresses of the file, best first."""
        usable = [mirror for mirror in mirrors if mirror.images or not self.images]
        return [f"{mirror.base.rstrip('/')}/{self.path}" for mirror in usable]


@dataclass(frozen=True)
class RawFiles:
    """Names and paths of a category's three files."""

    reviews: RawFile
    meta: RawFile
    images: RawFile


def raw_files(name: str) -> RawFiles:
    """Return the files of data set ``name``, one of :data:`CATEGORIES`."""
    category = CATEGORIES[name]
    sizes = _GIGABYTES[name]
    names = [pattern.format(category) for pattern in (_REVIEWS, _META, _IMAGES)]
    return RawFiles(
        reviews=RawFile(names[0], f"categoryFiles/{names[0]}", sizes[0]),
        meta=RawFile(names[1], f"categoryFiles/{names[1]}", sizes[1]),
        images=RawFile(names[2], f"image_features/categoryFiles/{names[2]}", sizes[2], images=True),
    )
