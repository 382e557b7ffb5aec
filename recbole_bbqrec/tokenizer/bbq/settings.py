"""Settings of BBQRec's phase-one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from recbole_bbqrec.settings import Check, Positive, PositiveNumber, Weight, is_number, option
from recbole_bbqrec.tokenizer.settings import QuantizerSettings, SequenceSettings


def _is_commitment(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_commitment(v) for k, v in value.items())
    return is_number(value) and value >= 0


Commitment = Annotated[
    Union[float, Mapping[str, float]],
    Check(
        "a number of at least 0, or a table signal: number",
        "float >= 0, or table signal: float >= 0",
        _is_commitment,
    ),
]


@dataclass(frozen=True)
class BBQSettings(QuantizerSettings, SequenceSettings):
    """Shape and losses of a :class:`~recbole_bbqrec.tokenizer.bbq.tokenizer.BBQTokenizer`.

    Defaults are the paper's where it gives them (section 6) and ours elsewhere. ``recon_reduction``
    "sum" is Eq. 9 as printed. "mean" divides each squared norm by its own dimension: the
    reconstruction by the feature's, the quantization terms by ``codebook_dim``. All terms are then
    of order one; a commitment term summed over 128 dimensions beside a reconstruction averaged
    over 768 would pull every item onto the same few codes. ``mim_reduction`` does the same for the
    mutual-information bound, whose width is that of zbar. Summed, with gamma = 1, it drowns the
    other losses of a modality and pushes its encoder to a constant (docs/findings.md).
    """

    use_id: bool = True
    use_mim: bool = True
    use_contrastive: bool = True
    share_codebook: bool = True
    mim_hidden: Positive = 256  # width of the estimators of mutual information
    levels: Positive = option(3, "L, code levels of an item.", name="codebook_levels")
    codebook_dim: Positive = option(128, "D, width of a code embedding.")
    commitment_weight: Commitment = option(0.25, "alpha_m, Eq. 9.")
    contrastive_weight: Weight = option(1.0, "beta, Eq. 13.")
    mim_weight: Weight = option(1.0, "gamma, Eq. 13.")
    mim_reduction: Literal["mean", "sum"] = option(
        "mean", "Of the mutual-information bound over dimensions."
    )
    temperature: PositiveNumber = option(0.1, "tau, Eq. 12.")
    encoder_hidden: Annotated[tuple[Positive, ...], "integers of at least 1"] = option(
        (512, 256), "Hidden widths of the modality encoders."
    )
    sequence_encoder: Literal["sasrec", "srgnn"] = option("sasrec", "f of Eq. 11.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_id and not self.use_contrastive:
            self._refuse(
                "use_id",
                "False when use_contrastive is False: that task alone supervises the ID "
                "representation",
            )

    def commitment_of(self, signal: str) -> float:
        """Return alpha_m of one signal; ValueError where a mapping lacks it."""
        if not isinstance(self.commitment_weight, Mapping):
            return float(self.commitment_weight)
        if signal not in self.commitment_weight:
            raise ValueError(
                f"commitment_weight has no entry for the signal {signal!r}; it names "
                f"{sorted(self.commitment_weight)}"
            )
        return float(self.commitment_weight[signal])
