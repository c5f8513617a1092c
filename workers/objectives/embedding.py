"""Embeddings by contrast (InfoNCE): an anchor is told from the candidates of its whole step, however that is cut.

The rows of an example are its anchor, its positive and, in files of triplets, its negative, one behind the other.
Shapes: N rows of a step and M of its micro-batch, E examples of a step, C candidates, H hidden.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.domain.model import HeadConfig
from service.recipes.objectives.embedding import EmbeddingSettings
from service.recipes.tasks import BaseKind
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.objectives.base import OBJECTIVES, Forward, HeadObjective, Loss


@OBJECTIVES.of(EmbeddingSettings)
class Embedding(HeadObjective):
    """The sum over anchors of -log softmax of their own positive: log C each where all texts have the same vector.

    The gradient of a step L(z_1 ... z_N) is that of all its vectors through the base, sum_i dL/dz_i dz_i/dw: as anchors
    and as candidates of others. dL/dz needs the vectors of all rows together, but no base; dz_i/dw the base, but one
    row alone. So where a step has several micro-batches, `shared` computes every vector without gradient and dL/dz from
    these once, and each micro-batch computes its own vectors again and passes sum_i z_i . dL/dz_i, whose gradient is
    its part of the exact one (Gao et al., 2021, arXiv 2101.06983, section 3.2).
    """

    contrasts = True

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings

    def prepare(self, train: TokenizedDataset, kind: BaseKind) -> None:
        pooling = self._settings.pooling or ("last" if kind == "causal" else "mean")
        self.config = HeadConfig(problem_type="embedding", labels=[], pooling=pooling)

    def count(self, batch: Batch) -> int:
        return len(batch.input_ids_BT) // batch.rows_per_example

    def shared(self, forward: Forward, batches: Iterable[Batch]) -> Tensor | None:
        """(N, H + 2): of each row dL/dz, and in an anchor's row its loss and whether its positive is the nearest.

        None for a single micro-batch, whose vectors have their gradients themselves. Afterwards the random generators
        are as before, so that a row's dropout is the same when its vector is computed again, in the same order.
        """
        whole = list(batches)
        if len(whole) == 1:
            return None
        device = whole[0].input_ids_BT.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            vectors_NH = torch.cat([self._vectors(forward, batch) for batch in whole])
        with torch.enable_grad():
            vectors_NH = vectors_NH.requires_grad_()
            losses_E, right_E = self._contrast(vectors_NH, whole)
            (gradients_NH,) = torch.autograd.grad(losses_E.sum(), vectors_NH)
        of_anchors_N2 = gradients_NH.new_zeros(len(vectors_NH), 2)
        of_anchors_N2[:: whole[0].rows_per_example] = torch.stack([losses_E.detach(), right_E], dim=1)
        return torch.cat([gradients_NH, of_anchors_N2], dim=1)

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        if batch.shared is None:
            losses_E, right_E = self._contrast(self._vectors(forward, batch), [batch])
            return Loss(losses_E.sum(), {"accuracy": right_E.sum()})
        mine_MH2 = batch.shared[batch.first_row : batch.first_row + len(batch.input_ids_BT)]
        gradients_MH, total, right = mine_MH2[:, :-2], mine_MH2[:, -2].sum(), mine_MH2[:, -1].sum()
        if torch.is_grad_enabled():
            vectors_MH = self._vectors(forward, batch)
            # The value is 0, the gradient that of  sum_i z_i . dL/dz_i
            total = total + ((vectors_MH - vectors_MH.detach()) * gradients_MH).sum()
        return Loss(total, {"accuracy": right})

    def _vectors(self, forward: Forward, batch: Batch) -> Tensor:
        """vectors_MH of length 1, in float32."""
        return self.head.values(self.logits(forward, batch))

    def _contrast(self, vectors_NH: Tensor, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """losses_E, each times its row's weight, and right_E, 0 or 1: of the anchors of these batches together."""
        rows_per_example = batches[0].rows_per_example
        anchors_EH = vectors_NH[0::rows_per_example]
        # Positives first: that of anchor i is candidate i.
        candidates_CH = torch.cat([vectors_NH[row::rows_per_example] for row in range(1, rows_per_example)])
        # L_i = -log exp(s cos(a_i, p_i)) / sum_j exp(s cos(a_i, c_j))      van den Oord et al., equation 4
        scores_EC = self._settings.scale * anchors_EH @ candidates_CH.T
        own_E = torch.arange(len(anchors_EH), device=scores_EC.device)
        losses_E = cross_entropy(scores_EC, own_E, reduction="none")
        weights = [batch.row_weights_B[0::rows_per_example] for batch in batches if batch.row_weights_B is not None]
        if weights:
            losses_E = losses_E * torch.cat(weights)
        return losses_E, (scores_EC.detach().argmax(dim=1) == own_E).to(losses_E.dtype)
