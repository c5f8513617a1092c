"""What every objective declares without tensors: its hyperparameters, and facts that follow from its kind.

An objective is one class in a file of its own (`service.recipes.objectives`, or an extension's), registered by
`@OBJECTIVES.register`; its tensor side implements it (`workers.objectives`). The class is the type of the
hyperparameters that are its own; on the wire they stand beside those of the training loop.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field, create_model

from service.domain.errors import InvalidRequest, JobError
from service.domain.json import JsonObject
from service.domain.model import TaskName
from service.recipes.base import Base
from service.recipes.fields import Auto, AutoRule, Integer, MethodFields, Number, Whole
from service.recipes.format import Format
from service.recipes.registry import Registry
from service.recipes.tasks import KINDS, TASKS, BaseKind


def auto_epochs(num_examples: int) -> int:
    """OpenAI's rule (cookbook, data preparation for chat fine-tuning): aim at 100 to 25,000 example passes."""
    if 3 * num_examples < 100:
        return max(1, min(25, 100 // num_examples))
    if 3 * num_examples > 25_000:
        return max(1, 25_000 // num_examples)
    return 3


def auto_batch_size(num_examples: int) -> int:
    """OpenAI's rule (legacy fine-tuning guide): about 0.2 % of the examples, at most 256."""
    return max(1, min(256, round(0.002 * num_examples)))


class Hyperparameters(MethodFields):
    """Of every objective; "auto" is replaced once the files are validated."""

    batch_size: Annotated[Auto | Annotated[Integer, Field(ge=1, le=256)], Whole] = Field(
        "auto", description="examples of one optimizer step; never more than the file holds"
    )
    learning_rate_multiplier: Auto | Annotated[Number, Field(gt=0)] = Field(
        "auto", description="multiplies the learning rate of base and tuning"
    )
    n_epochs: Annotated[Auto | Annotated[Integer, Field(ge=1, le=50)], Whole] = Field(
        "auto", description="passes over the training file"
    )


AUTO: Mapping[str, AutoRule] = {
    "n_epochs": AutoRule(
        "3; with fewer than 34 examples 100 / n, at most 25; with more than 8333 examples 25000 / n, at least 1",
        auto_epochs,
    ),
    "batch_size": AutoRule("0.2 % of n, rounded, from 1 to 256", auto_batch_size),
    "learning_rate_multiplier": AutoRule("1", lambda num_examples: 1.0),
}


class ObjectiveSettings(MethodFields):
    """Hyperparameters of one objective's own: which loss. Subclasses give them as fields, and these facts.

    A subclass's docstring is its paragraph of docs/methods.md: the loss, its paper, when to use it.
    """

    name: ClassVar[str]  # as `method.type` has it
    auto: ClassVar[Mapping[str, AutoRule]] = {}  # for each of the fields that may be "auto"
    columns: ClassVar[Mapping[str, str]]  # of `step_metrics.csv`: name -> the metric that fills it
    metrics: ClassVar[tuple[str, ...]]  # besides the loss, as in `train_<name>` and `valid_<name>`
    formats: ClassVar[tuple[type[Format], ...]]  # of the rows that it reads
    rows_per_example: ClassVar[int] = 1
    fewest_examples: ClassVar[int] = 1  # of a step: fewer would learn nothing
    packed: ClassVar[bool] = False  # an example is as many rows as fit into the context (`workers.data.examples`)
    unpaired: ClassVar[bool] = (
        False  # one answer with a label is an example (`workers.data.examples` adds its second row)
    )
    has_prompts: ClassVar[bool] = True  # whether engines, too, read a row up to where its trained tokens begin
    task: ClassVar[TaskName] = "generate"  # what its models are for
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal"})  # of the bases that it trains
    unpacked_because: ClassVar[str] = ""  # why a step's rows are padded and not packed (docs/methods.md); empty: packed
    file_metrics: ClassVar[tuple[str, ...]] = ()  # of the whole validation file alone, as in `full_valid_<name>`
    module: ClassVar[str] = ""  # of the tensor side; empty: `workers.objectives.<name>`

    @classmethod
    def auto_for(cls, hyperparameters: Mapping[str, Any]) -> Mapping[str, AutoRule]:
        """`auto` for a job with these hyperparameters, where a rule depends on another of them."""
        return cls.auto

    def check_base(self, base: Base) -> None:
        """Raises InvalidRequest where these settings make no sense on the base, whose kind the objective trains."""
        return None

    def check_labels(self, names: Sequence[str]) -> None:
        """Raises JobError where these settings do not fit the labels of the training file. Called where it has some."""
        return None

    def stored(self) -> JsonObject:
        """As JSON; `objective_of` reads it."""
        return {"type": self.name, self.name: self.model_dump()}


OBJECTIVES: Registry[type[ObjectiveSettings]] = Registry("objective")


def find_objective(name: str) -> type[ObjectiveSettings]:
    """The objective of that name. Raises JobError where this process does not have it."""
    found = OBJECTIVES.find(name)
    if found is None:
        message = f"This installation has no method '{name}' any more; LUTHIER_EXTENSIONS names the modules of methods."
        raise JobError("method_unavailable", message, param="method.type")
    return found


def check_trainable(base: Base, objective: type[ObjectiveSettings], hyperparameters: Mapping[str, Any]) -> None:
    """Raises InvalidRequest where the objective does not train such a base, or the base's engines do not serve it."""
    if base.kind not in objective.kinds:
        able = [f"'{other.name}'" for other in OBJECTIVES if base.kind in other.kinds]
        instead = f"use {' or '.join(able)}" if able else "no method of this installation trains one"
        raise InvalidRequest(
            f"The method '{objective.name}' cannot train '{base.id}': it is {KINDS[base.kind]}; {instead}.",
            param="method.type",
            code="method_not_available",
        )
    if TASKS[objective.task].has_head and base.serving.engine != "embedded":
        raise InvalidRequest(
            f"The engines of '{base.id}' are {base.serving.engine}, which does not serve what the method "
            f"'{objective.name}' makes; use a base with the embedded engine.",
            param="method.type",
            code="method_not_available",
        )
    size = hyperparameters.get("batch_size")
    if isinstance(size, int) and size < objective.fewest_examples:
        raise InvalidRequest(
            f"The method '{objective.name}' learns from what distinguishes the rows of a step: 'batch_size' must be at "
            f"least {objective.fewest_examples}, and many more are better.",
            param=f"method.{objective.name}.hyperparameters.batch_size",
        )
    own_settings(objective, hyperparameters).check_base(base)


def objective_of(stored: Mapping[str, Any]) -> ObjectiveSettings:
    """The settings that `stored` gave. Raises JobError for an objective that this process does not have."""
    name = stored["type"]
    return find_objective(name).model_validate(stored[name])


@cache
def hyperparameters_type(objective: type[ObjectiveSettings]) -> type[Hyperparameters]:
    """What a request may give: the loop's hyperparameters and the objective's own, in one object."""
    if not objective.model_fields:
        return Hyperparameters
    name = f"{camel(objective.name)}Hyperparameters"
    bases: Any = (Hyperparameters, objective)
    return cast(type[Hyperparameters], create_model(name, __base__=bases, __doc__=objective.__doc__))


def own_settings(objective: type[ObjectiveSettings], hyperparameters: Mapping[str, Any]) -> ObjectiveSettings:
    """What of a job's hyperparameters is the objective's own, not the loop's.

    A job of an earlier version lacks those that came later: it has their defaults.
    """
    own = objective.model_fields.keys() & hyperparameters.keys()
    return objective.model_validate({name: hyperparameters[name] for name in own})


def resolve_auto(
    objective: type[ObjectiveSettings], hyperparameters: Mapping[str, Any], num_examples: int
) -> JsonObject:
    """Concrete numbers for every "auto"; an example is what a step counts, such as a row or a pair.

    The multiplier's is 1: the base's learning rate for the tuning as it stands.
    """
    rules = {**AUTO, **objective.auto_for(hyperparameters)}
    values = {
        name: rules[name].value(num_examples) if value == "auto" else value for name, value in hyperparameters.items()
    }
    values["batch_size"] = min(values["batch_size"], num_examples)
    return values


def camel(name: str) -> str:
    """`some_name` as the name of a class: `SomeName`."""
    return "".join(part.capitalize() for part in name.split("_"))
