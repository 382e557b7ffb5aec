"""The paper's eight variants of BBQRec (section 5.3); each removes or replaces one part."""

from __future__ import annotations

import torch

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.model.sequential_recommender.bbqrec import BBQRec
from recbole_bbqrec.protocols import ItemDataset, RunConfig


class BBQRecNoMIM(BBQRec):
    """BBQRec without minimal mutual information and modality-specific encoders (Table 3)."""

    use_mim = False


class BBQRecNoRec(BBQRec):
    """BBQRec without the contrastive task and the ID that it alone supervises (Table 3)."""

    use_contrastive = False
    use_id = False


class BBQRecNoU(BBQRec):
    """BBQRec with a codebook of its own for every signal (Table 3)."""

    share_codebook = False


class BBQRecS(BBQRec):
    """BBQRec without the similarity module in the self-attention (Table 4)."""

    use_similarity = False


class BBQRecE(BBQRec):
    """Code embeddings of the generator start from the phase-one codebooks (Table 4).

    With shared codebooks the signals of a level start equal.
    """

    def set_semantic_ids(
        self, codes: torch.Tensor, vectors: torch.Tensor, codebooks: torch.Tensor | None = None
    ) -> None:
        """Store the result of phase one, codebooks float32 [S, L, N, D] included.

        Raises:
            UserError: there are no codebooks of the generator's shape.
        """
        super().set_semantic_ids(codes, vectors, codebooks)
        table = self.generator.encoder.tokens.codes  # [M, L, N, D]
        if codebooks is None or codebooks.shape[1:] != table.shape[1:]:
            found = "no codebooks" if codebooks is None else f"codebooks {list(codebooks.shape)}"
            raise UserError(
                f"The semantic IDs in `tokenizer_path` come with {found}; {type(self).__name__} "
                f"starts from codebooks of shape {list(table.shape[1:])} (`codebook_levels`, "
                "`codebook_size`, `codebook_dim`). Run phase one again."
            )
        shared = len(codebooks) == 1
        self.generator.encoder.tokens.load_codes(codebooks[0] if shared else codebooks)


class BBQRecNoID(BBQRec):
    """BBQRec without the ID representation; the contrastive task remains (Figure 4)."""

    use_id = False


class _WithoutModality(BBQRec):
    """Leaves modalities out; warns if the run has none of them."""

    def __init__(self, config: RunConfig, dataset: ItemDataset) -> None:
        super().__init__(config, dataset)
        absent = [name for name in self.left_out if name not in (config["modalities"] or ())]
        if absent:
            self.logger.warning(
                f"`modalities` is {config['modalities']!r}: {type(self).__name__} leaves out "
                f"{absent[0]!r}, which is not among them, so this run equals BBQRec's."
            )


class BBQRecNoText(_WithoutModality):
    """BBQRec without the text and its modules (Figure 4)."""

    left_out = ("text",)


class BBQRecNoImage(_WithoutModality):
    """BBQRec without the image and its modules (Figure 4)."""

    left_out = ("image",)
