"""Embeddings of texts by contrast, without tensors. The tensor side is in `workers.objectives.embedding`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from service.domain.model import TaskName
from service.recipes.base import Base
from service.recipes.fields import AutoRule, Number
from service.recipes.format import Format
from service.recipes.formats.contrastive import ContrastivePair, ContrastiveTriplet
from service.recipes.objective import OBJECTIVES, ObjectiveSettings
from service.recipes.pooling import Pooling, check_pooling
from service.recipes.tasks import BaseKind

AUTO_BATCH_SIZE = 32  # a step's other positives are the negatives: 0.2 % of a small file would leave none


@OBJECTIVES.register
class EmbeddingSettings(ObjectiveSettings):
    """A vector for a text, of length 1, such that texts which belong together are near each other: for search,
    retrieval, clustering and deduplication. The vector z is the mean of the tokens' last states on an encoder, the last
    token's state on a causal base. Of a step's anchors a_i with their positives p_i the loss is
    -log exp(s cos(a_i, p_i)) / sum_j exp(s cos(a_i, c_j)) over all candidates c of the whole step, which are the
    positives of all its rows and, where rows have them, their negatives: InfoNCE (van den Oord et al., 2018,
    [arXiv 1807.03748](https://arxiv.org/abs/1807.03748)) with negatives of the same batch (Henderson et al., 2017,
    [arXiv 1705.00652](https://arxiv.org/abs/1705.00652)), sentence-transformers' MultipleNegativesRankingLoss. A step
    that is computed in several micro-batches has the loss and the gradient of the whole (Gao et al., 2021,
    [arXiv 2101.06983](https://arxiv.org/abs/2101.06983)), for one more pass without gradient. The more rows a step has,
    the harder its task: `batch_size` "auto" is 32, and a step of one row would learn nothing. Two rows of a step with
    the same positive contradict each other: keep such rows few. `accuracy` is the share of anchors whose own positive
    is the nearest candidate (recall at 1); it and the loss depend on the number of candidates, so that a validation
    file is measured in steps of `batch_size` too. There is no layer beside the base: the tuning does it all.
    `POST /v1/embeddings` returns the vectors, in OpenAI's shape.
    """

    name: ClassVar[str] = "embedding"
    task: ClassVar[TaskName] = "embed"
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder"})
    formats: ClassVar[tuple[type[Format], ...]] = (ContrastivePair, ContrastiveTriplet)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "full_valid_loss": "full_valid_loss",
        "full_valid_accuracy": "full_valid_accuracy",
    }
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    rows_per_example: ClassVar[int] = 2
    fewest_examples: ClassVar[int] = 2

    scale: Annotated[Number, Field(gt=0, le=1000)] = Field(
        20.0,
        description="s, by which cosines are multiplied: 1 / temperature; 20, a temperature of 0.05, is "
        "sentence-transformers' default. The greater, the more the nearest wrong texts count",
    )
    pooling: Pooling | None = Field(
        None,
        description="which vector stands for the text: the `last` token's, the first one's (`cls`), or the `mean`; "
        "without it, `last` on a causal base and `mean` on an encoder",
    )

    @classmethod
    def auto_for(cls, hyperparameters: Mapping[str, Any]) -> Mapping[str, AutoRule]:
        return {"batch_size": AutoRule(str(AUTO_BATCH_SIZE), lambda num_examples: AUTO_BATCH_SIZE)}

    def check_base(self, base: Base) -> None:
        check_pooling(self.pooling, base, self.name)
