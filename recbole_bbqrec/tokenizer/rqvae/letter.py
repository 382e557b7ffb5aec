"""LETTER's tokenizer: RQ-VAE with collaborative alignment and diversity of code assignment.

Reference: Wang et al., "Learnable Item Tokenization for Generative Recommendation", CIKM 2024.
The three terms follow its code: alignment and diversity are in-batch softmaxes of dot products
without temperature, and the diversity term is the mean over levels and items. Differences from
its code, on purpose:

* Quantization terms are summed over levels, as in the papers; there they are averaged, a quarter.
* The residual has no straight-through gradient from level to level. There it has, which cancels
  the encoder's commitment from the second level on.
* The last level assigns the nearest code in training too; there it uses Sinkhorn in the batch.
* Codebooks start from k-means, there from constrained k-means over all items. Codes that no item
  uses are restarted.
* By default, as in all measured rows, a code's partner in the diversity term is drawn once a step;
  there, and with ``diversity_partners: item``, once for each item. alpha is .01, the release's for
  Instruments; its script for Beauty has .1. ``LETTER.paper.yaml`` has both released values.
* The SASRec that gives the behaviour embeddings is ours: Adam, N(0, 0.02).
* Codes are clustered from one start; there from the best of ten. Both cluster in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_bbqrec.distributed.sums import mean, of_main, own_of, synchronise
from recbole_bbqrec.tokenizer.rqvae.balanced_kmeans import constrained_kmeans
from recbole_bbqrec.tokenizer.rqvae.rqvae import ItemPass, RQVAETokenizer
from recbole_bbqrec.tokenizer.rqvae.settings import LETTERSettings


class LETTERTokenizer(RQVAETokenizer):
    """RQ-VAE whose quantized vectors are aligned with behaviour.

    :meth:`prepare` calls ``collaborate`` once for behaviour embeddings float32 [n_items, D];
    ``known`` bool [n_items] marks the items of the training histories, whose embeddings are
    meaningful. Embeddings and clusters are buffers, so that a resumed run has them.
    """

    collaborative: Tensor
    clusters: Tensor
    known: Tensor

    def __init__(
        self, config: LETTERSettings, modality: str, matrix: Tensor, present: Tensor,
        known: Tensor, collaborate: Callable[[torch.device], Tensor],
    ) -> None:  # fmt: skip
        super().__init__(config, modality, matrix, present)
        self.n_clusters, self.cluster_sizes = config.diversity_clusters, config.cluster_sizes
        self.partners = config.diversity_partners
        self.weights["alignment"] = config.alignment_weight
        self.weights["diversity"] = config.diversity_weight
        self._collaborate = collaborate
        shape = (len(matrix), config.codebook_dim)
        self.register_buffer("collaborative", torch.zeros(shape))
        self.register_buffer("known", known.bool(), persistent=False)
        # Cluster of every code, int64 [L, N].
        clusters = torch.zeros(config.levels, config.codebook_size, dtype=torch.int64)
        self.register_buffer("clusters", clusters)

    def prepare(self, seed: int) -> None:
        """Train the behaviour embeddings."""
        self.collaborative.copy_(self._collaborate(self.collaborative.device))
        synchronise(self)

    def initialise_codebooks(self, seed: int) -> None:
        """Fit the codebooks and cluster their codes."""
        super().initialise_codebooks(seed)
        self._cluster(seed)

    def start_of_epoch(self, generator: torch.Generator) -> None:
        """Maintain the codebooks, then cluster their codes again."""
        super().start_of_epoch(generator)
        if self.is_quantizing():
            self._cluster(int(torch.randint(2**31, (), generator=generator)))

    @torch.no_grad()
    def _cluster(self, seed: int) -> None:
        for level, codebook in enumerate(self.quantizer.codebooks[0]):
            self.clusters[level] = constrained_kmeans(
                codebook, self.n_clusters, *self.cluster_sizes, seed=seed + level
            )
        synchronise(self)

    def item_terms(self, batch: ItemPass) -> dict[str, Tensor]:
        """Add "alignment", and "diversity" once there are codebooks, to RQ-VAE's terms."""
        terms = super().item_terms(batch)
        known = self.known[batch.items]  # [U]
        quantized = batch.quantization.quantized_ste.squeeze(1)  # [U, D]
        candidates = self.known[batch.every]
        items = batch.every[candidates]
        terms["alignment"] = alignment_loss(
            quantized[known], self.collaborative[items], items, own_of(candidates)
        )
        if self.is_quantizing():
            levels = [
                self._diversity(level, batch.quantization.codes[:, level, 0])
                for level in range(self.config.levels)
            ]
            terms["diversity"] = torch.stack(levels).mean()
        return terms

    def _diversity(self, level: int, used: Tensor) -> Tensor:
        codebook, clusters = self.quantizer.codebooks[0, level], self.clusters[level]
        if self.partners == "item":
            return diversity_loss_of_items(codebook, draw_partners(clusters, used), used)
        return diversity_loss(codebook, of_main(draw_partners(clusters)), used)


def alignment_loss(
    quantized: Tensor, collaborative: Tensor, items: Tensor, own: Tensor | None = None
) -> Tensor:
    """InfoNCE of the dot products of quantized [U, D] and behaviour vectors [U, D] in the batch.

    ``items`` int64 [U]: other rows of a row's own item are masked with minus infinity, so that no
    item is its own negative. Zero without rows. With ``own`` int64 [u], ``quantized`` [u, D] holds
    these rows alone, and the loss is this process's part.
    """
    if len(items) == 0:
        return quantized.sum() * 0
    with torch.autocast(device_type=quantized.device.type, enabled=False):
        logits = quantized.to(collaborative.dtype) @ collaborative.T  # [U, U]
        place = torch.arange(len(items), device=items.device)
        label = place if own is None else own
        repeated = (items[label].unsqueeze(1) == items) & (label.unsqueeze(1) != place)
        losses = F.cross_entropy(logits.masked_fill(repeated, -torch.inf), label, reduction="none")
        return mean(losses)


def draw_partners(clusters: Tensor, used: Tensor | None = None) -> Tensor:
    """Draw for each code another code of its cluster: clusters int64 [N] -> int64 [N].

    With ``used`` int64 [B], the codes of B items, one is drawn for each item: int64 [B]. Every
    cluster has at least two codes.
    """
    same = clusters.unsqueeze(1) == clusters  # [N, N]
    same.fill_diagonal_(False)
    chances = same.float() if used is None else same.float()[used]
    return torch.multinomial(chances, 1).squeeze(1)


def diversity_loss(codebook: Tensor, partners: Tensor, used: Tensor) -> Tensor:
    """Mean over ``used`` codes of - log( exp<e, e+> / sum over other codes e' of exp<e, e'> ).

    codebook [N, D]; e+ = codebook[partners], partners int64 [N]; used int64 [B]: the code of each
    item. Pulling a code towards its cluster and away from the rest spreads the codes over
    clusters of bounded size. The loss is log(N - 1) if all codes are alike; its expectation is
    never below log(s - 1), s being the size of the cluster.
    """
    with torch.autocast(device_type=codebook.device.type, enabled=False):
        loss = -_log_shares(codebook).gather(1, partners.unsqueeze(1)).squeeze(1)  # [N]
        return mean(loss[used])


def diversity_loss_of_items(codebook: Tensor, partners: Tensor, used: Tensor) -> Tensor:
    """:func:`diversity_loss` with a partner for each item: ``partners``, ``used`` int64 [B].

    The same on average over the draws, with a smaller variance.
    """
    with torch.autocast(device_type=codebook.device.type, enabled=False):
        return mean(-_log_shares(codebook)[used, partners])


def _log_shares(codebook: Tensor) -> Tensor:
    """Log-softmax of a code's products with the others, [N, D] -> [N, N]; itself: -inf."""
    scores = codebook @ codebook.T  # [N, N]
    itself = torch.eye(len(codebook), dtype=torch.bool, device=codebook.device)
    return scores.masked_fill(itself, -torch.inf).log_softmax(-1)
