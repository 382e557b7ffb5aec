"""Settings of BBQRec's phase-one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_bbqrec.nn.standardizer import SCALINGS
from recbole_bbqrec.tokenizer.losses import REDUCTIONS
from recbole_bbqrec.tokenizer.sequence_encoders import SEQUENCE_ENCODERS

_AT_LEAST_ONE = (
    "levels", "codebook_size", "codebook_dim", "mim_hidden", "sequence_layers", "sequence_heads",
    "sequence_hidden_size", "max_history",
)  # fmt: skip
_NOT_NEGATIVE = ("contrastive_weight", "mim_weight")
_CHOICES = {
    "sequence_encoder": SEQUENCE_ENCODERS,
    "recon_reduction": REDUCTIONS,
    "feature_scaling": SCALINGS,
}


@dataclass(frozen=True)
class BBQSettings:
    """Defaults are the paper's where it gives them (section 6) and ours elsewhere.

    ``commitment_weight`` (alpha_m) is one number or one per signal. ``recon_reduction`` "sum"
    is Eqs. 3 and 9 as printed. "mean" divides each squared norm by its own dimension: the
    reconstruction by the feature's, the quantization terms by ``codebook_dim`` and the
    mutual-information bound by the width of zbar. All terms are then of order one; a
    commitment term summed over 128 dimensions beside a reconstruction averaged over 768 would
    pull every item onto the same few codes.
    """

    levels: int = 3
    codebook_size: int = 256
    codebook_dim: int = 128
    commitment_weight: float | Mapping[str, float] = 0.25
    contrastive_weight: float = 1.0
    mim_weight: float = 1.0
    temperature: float = 0.1
    encoder_hidden: tuple[int, ...] = (512, 256)
    dropout: float = 0.0
    mim_hidden: int = 256
    use_id: bool = True
    use_mim: bool = True
    use_contrastive: bool = True
    share_codebook: bool = True
    sequence_encoder: str = "sasrec"
    sequence_layers: int = 2
    sequence_heads: int = 2
    sequence_hidden_size: int = 128
    sequence_dropout: float = 0.2
    max_history: int = 20
    recon_reduction: str = "mean"
    feature_scaling: str = "zscore"

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in _NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "zero or more")
        for name in ("dropout", "sequence_dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name, choices in _CHOICES.items():
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        self._require("temperature", self.temperature > 0, "positive")
        self._require("encoder_hidden", min(self.encoder_hidden, default=1) >= 1, "widths >= 1")
        weights = self.commitment_weight
        values = weights.values() if isinstance(weights, Mapping) else [weights]
        self._require("commitment_weight", all(w >= 0 for w in values), "zero or more")
        self._require(
            "sequence_hidden_size", self.sequence_hidden_size % self.sequence_heads == 0,
            f"a multiple of sequence_heads={self.sequence_heads}",
        )  # fmt: skip
        self._require(
            "use_id", self.use_contrastive or not self.use_id,
            "false when use_contrastive is false: that task alone supervises the ID representation",
        )  # fmt: skip

    def _require(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise ValueError(f"{name} must be {expected}, got {getattr(self, name)!r}")

    def commitment_of(self, signal: str) -> float:
        """alpha_m of one signal; ValueError where a mapping lacks it."""
        if not isinstance(self.commitment_weight, Mapping):
            return float(self.commitment_weight)
        if signal not in self.commitment_weight:
            raise ValueError(
                f"commitment_weight has no entry for the signal {signal!r}; it names "
                f"{sorted(self.commitment_weight)}"
            )
        return float(self.commitment_weight[signal])
