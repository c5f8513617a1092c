"""Classification of texts, without tensors. The tensor side is in `workers.objectives.classification`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.domain.errors import JobError
from service.domain.model import TaskName
from service.recipes.base import Base
from service.recipes.fields import Number
from service.recipes.format import Format
from service.recipes.formats.labelled import LABELS_LIMIT, Labelled
from service.recipes.objective import OBJECTIVES, ObjectiveSettings
from service.recipes.pooling import Pooling, check_pooling
from service.recipes.tasks import BaseKind


@OBJECTIVES.register
class ClassificationSettings(ObjectiveSettings):
    """A label for a text. One linear layer, the *head*, is trained beside the tuning; it reads one vector of the text:
    the state of the last token on a causal base, the mean over the tokens on an encoder. With one label per row the
    loss is the cross entropy -w log p(label), p = softmax(W h + b), as in BERT (Devlin et al., 2018,
    [arXiv 1810.04805](https://arxiv.org/abs/1810.04805), section 4.1); with several it is the mean over the labels of
    -w y log p - (1 - y) log(1 - p), p = sigmoid(W h + b). The head begins at zero, so the first loss is the logarithm
    of the number of labels, or of 2. `accuracy` is the share of rows whose label, or whose set of labels, is right. At
    the end of an epoch `full_valid_macro_f1` is the mean over the labels of 2 TP / (2 TP + FP + FN) in the validation
    file, and the job's result files have its confusion matrix at the last one. Labels are those of the training file.

    The votes of rows with `votes` are combined by Dawid and Skene's method (1979,
    [Applied Statistics 28](https://doi.org/10.2307/2346806)): each annotator's errors and each row's label are
    estimated in turns, p(label j of row i) ~ p_j prod over its votes l by k of pi_jl^(k), until they no longer change.
    A row is trained with its likeliest label, and that label's probability as its weight, times the row's own. The
    job's result file `combined_labels.csv` has, for each row that is trained, the label, its probability, and those of
    all labels.
    """

    name: ClassVar[str] = "classification"
    task: ClassVar[TaskName] = "classify"
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder"})
    formats: ClassVar[tuple[type[Format], ...]] = (Labelled,)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "full_valid_accuracy": "full_valid_accuracy",
        "full_valid_macro_f1": "full_valid_macro_f1",
    }
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    file_metrics: ClassVar[tuple[str, ...]] = ("macro_f1",)

    class_weights: (
        Literal["balanced"]
        | Annotated[dict[str, Annotated[Number, Field(gt=0)]], Field(max_length=LABELS_LIMIT)]
        | None
    ) = Field(
        None,
        description="w: how much a label's rows count, by the label's name, 1 where none is given; `balanced`: n / (k "
        "n_c) for the n_c of n rows that have one of k labels, or with several labels per row (n - n_c) / n_c",
    )
    pooling: Pooling | None = Field(
        None,
        description="which vector the head reads: the `last` token's, the first one's (`cls`), or the `mean`; without "
        "it, `last` on a causal base and `mean` on an encoder",
    )

    def check_base(self, base: Base) -> None:
        check_pooling(self.pooling, base, self.name)

    def check_labels(self, names: Sequence[str]) -> None:
        weighted = self.class_weights if isinstance(self.class_weights, dict) else {}
        if unknown := [name for name in weighted if name not in names]:
            raise JobError(
                "invalid_class_weights",
                f"'class_weights' names '{unknown[0]}', which no row of the training file has as its label.",
                param="method.classification.hyperparameters.class_weights",
            )
