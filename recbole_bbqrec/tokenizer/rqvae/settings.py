"""Settings of the RQ-VAE tokenizers: TIGER's, LETTER's and CoST's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from recbole_bbqrec.settings import OptionalText, Positive, PositiveNumber, Weight, option
from recbole_bbqrec.tokenizer.settings import QuantizerSettings, SequenceSettings

_SMALLEST_CLUSTER = 10  # codes; half of an even share where that is less
_LARGEST_CLUSTER = 6  # times the number of clusters


@dataclass(frozen=True)
class RQVAESettings(QuantizerSettings):
    """Shape and losses of an RQ-VAE; the defaults are TIGER's.

    ``levels`` are those that are quantized: ``codebook_levels`` without a disambiguation token.
    ``recon_reduction`` "mean" divides every squared norm by its width.
    """

    levels: Positive = 3
    codebook_dim: Positive = option(32, "D, width of a code embedding.")
    commitment_weight: Weight = option(0.25, "beta.")
    encoder_hidden: Annotated[tuple[Positive, ...], "integers of at least 1"] = option(
        (512, 256, 128), "Hidden widths of encoder and decoder."
    )


@dataclass(frozen=True)
class LETTERSettings(RQVAESettings):
    """:class:`RQVAESettings` with LETTER's weights (its alpha and beta) and clusters."""

    levels: Positive = 4
    alignment_weight: Weight = option(0.01, "alpha, of InfoNCE with the collaborative embeddings.")
    diversity_weight: Weight = option(0.0001, "beta, of the diversity of code assignment.")
    diversity_partners: Literal["code", "item"] = option(
        "code", "Draw a code's partner in the diversity term once a step, or once for each item."
    )
    diversity_clusters: Positive = option(
        10, "Clusters of codes a level, at most half the codebook."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.diversity_clusters > self.codebook_size:
            self._refuse(
                "diversity_clusters",
                f"at most half of `codebook_size`, which is {self.codebook_size}: every code needs "
                "another one in its cluster",
            )

    @property
    def cluster_sizes(self) -> tuple[int, int]:
        """The least and greatest number of codes in a cluster, by the rule of LETTER's code.

        10 to 60 for 10 clusters of 256 codes. Never below 2 (a code needs a partner), nor out
        of reach.
        """
        clusters, codes = self.diversity_clusters, self.codebook_size
        smallest = max(2, min(codes // (2 * clusters), _SMALLEST_CLUSTER))
        largest = max(_LARGEST_CLUSTER * clusters, -(-codes // clusters))
        return smallest, min(largest, codes)


@dataclass(frozen=True)
class CollaborativeSettings(SequenceSettings):
    """The SASRec whose item embeddings LETTER aligns its codes with."""

    cf_embedding_path: OptionalText = option(
        None,
        "Behaviour embeddings, <Dataset>.<name>.npy with .items.txt beside it, `codebook_dim` "
        "wide; empty: those of a SASRec trained on the training histories.",
    )
    cf_epochs: Positive = option(30, "Epochs of that SASRec: Adam with cosine decay.")
    learning_rate: PositiveNumber = option(
        0.001, "AdamW, cosine decay to zero.", name="tokenizer_learning_rate"
    )
    embedding_dim: Positive = option(32, "D, width of a code embedding.", name="codebook_dim")
    sequence_hidden_size: Positive = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        path = self.cf_embedding_path
        if path is not None and len(Path(path).name.split(".")) != 3:
            self._refuse(
                "cf_embedding_path",
                "a file <Dataset>.<name>.npy with <Dataset>.<name>.items.txt beside it, such as "
                "Beauty.cf.npy",
            )


@dataclass(frozen=True)
class CoSTSettings(RQVAESettings):
    """:class:`RQVAESettings`; ``reconstruction_weight`` 0 replaces the reconstruction loss."""

    contrastive_weight: Weight = option(1.0, "Of InfoNCE between decoded and input embeddings.")
    reconstruction_weight: Weight = option(0.0, "Of the squared error; 0: contrast replaces it.")
    temperature: PositiveNumber = option(0.1, "Of the cosines in InfoNCE.")
