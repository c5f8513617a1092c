"""What every tuning declares without tensors: its settings, and facts that follow from its kind.

A tuning is one class in a file of its own (`service.recipes.tunings`, or an extension's), registered by
`@TUNINGS.register`; its tensor side implements it (`workers.tunings`). The class is the type of its settings.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from service.domain.errors import InvalidRequest, JobError
from service.domain.json import JsonObject
from service.recipes.base import LEAST_CONTEXT_TOKENS, Base, EngineKind
from service.recipes.fields import MethodFields
from service.recipes.registry import Registry
from service.recipes.tasks import BaseKind

LoraForm = Literal["exact", "truncated", "none"]


@dataclass(frozen=True)
class BaseSize:
    """How large a base is, as far as learning rates depend on it."""

    hidden_size: int
    num_layers: int

    def scaled(self, rate: float) -> float:
        """A learning rate that is known for a hidden size of 2000: it falls with the size to the power of 0.781.

        The fit for Llama in Thinking Machines' cookbook (2025).
        """
        return float(rate * (2000 / self.hidden_size) ** 0.781)


class TuningSettings(MethodFields):
    """Settings of one tuning: which parameters move. Subclasses give them as fields, and these facts.

    A subclass's docstring is its paragraph of docs/methods.md: what it is, its paper, when to use it.
    """

    name: ClassVar[str]  # as `tuning.type` has it
    peft_type: ClassVar[str]  # in a saved adapter's configuration: whose it is
    engines: ClassVar[frozenset[EngineKind]]  # which can serve it
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal"})  # of the bases that it can tune
    changeable: ClassVar[frozenset[str]] = frozenset()  # settings that may be others when a model is continued
    unpacked_because: ClassVar[str] = ""  # why a step's rows are padded and not packed (docs/methods.md); empty: packed
    module: ClassVar[str] = ""  # of the tensor side; empty: `workers.tunings.<name>`
    moves_the_base: ClassVar[bool] = False  # whether it trains weights of the base, which 4 bits cannot hold
    # Whether a LoRA can be served instead (`service.recipes.served_form`): one that computes the same, one that keeps
    # most of it, or none. The tensor side then is a `workers.tunings.weight_changes.WeightChanging`.
    lora_form: ClassVar[LoraForm] = "none"
    no_lora_form: ClassVar[str] = "it has no conversion"  # why not
    # Whether what it computes depends on where the prompt ends: each trained turn of a conversation is then a row of
    # its own, after the prompt that an engine gets, and an objective whose rows have no prompt does not go with it.
    edits_prompts: ClassVar[bool] = False
    merges: ClassVar[bool] = False  # whether it is a difference of the base's weights: see `MergeableTuning` there

    @classmethod
    @abstractmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """For a base of which the catalogue says none: what `learning_rate_multiplier` multiplies."""

    @property
    def prefix_tokens(self) -> int:
        """How many positions of the base's context the tuning takes for itself."""
        return 0

    @property
    def lora_rank(self) -> int | None:
        """The rank of the LoRA that computes the same; None: there is none, or of a rank that depends on the base."""
        return None

    def check_lora_form(self) -> None:
        """Raises InvalidRequest where no LoRA can be served instead of the tuning."""
        if self.lora_form == "none":
            raise InvalidRequest(
                f"The tuning '{self.name}' cannot be served as a LoRA: {self.no_lora_form}. Leave serve_as out, or "
                "choose another tuning.",
                param="tuning.serve_as",
            )

    def check_tunable(self, base: Base) -> None:
        """Raises InvalidRequest where the base has its weights in a form that the tuning cannot train."""
        if self.moves_the_base and base.quantization:
            raise InvalidRequest(
                f"The tuning '{self.name}' moves the base's own weights, which '{base.id}' has in 4 bits "
                f"({base.quantization}); use another tuning, such as lora, or a base that is not quantised.",
                param="tuning.type",
            )

    def check_servable(self, base: Base) -> None:
        """Raises InvalidRequest where the engines of `base`, which serve the tuning, do not serve these settings."""
        return None

    def stored(self) -> JsonObject:
        """For a row of the database, `{"type": t, t: settings}`; `tuning_of` reads it."""
        return {"type": self.name, self.name: self.model_dump()}


SERVED_FORM_FIELDS = frozenset({"serve_as", "serve_rank", "serve_min_share"})  # beside `type` in a job's `tuning`
TUNINGS: Registry[type[TuningSettings]] = Registry("tuning", reserved=SERVED_FORM_FIELDS)


def tuning_of(stored: Mapping[str, Any]) -> TuningSettings:
    """The settings that `stored` gave. Raises JobError for a tuning that this process does not have."""
    name = stored["type"]
    found = TUNINGS.find(name)
    if found is None:
        message = f"This installation has no tuning '{name}' any more; LUTHIER_EXTENSIONS names the modules of methods."
        raise JobError("method_unavailable", message, param="tuning.type")
    return found.model_validate(stored[name])


def check_servable(base: Base, tuning: TuningSettings) -> None:
    """Raises InvalidRequest where the engines of `base` could not serve what the job would make."""
    if tuning.name not in base.serving.tunings:
        offered = ", ".join(sorted(base.serving.tunings))
        converted = tuning.lora_form != "none" and "lora" in base.serving.tunings
        instead = ", or give serve_as 'lora' beside the type" if converted else ""
        raise InvalidRequest(
            f"The engines of '{base.id}' cannot serve the tuning '{tuning.name}'; use one of: {offered}{instead}.",
            param="tuning.type",
        )
    tuning.check_tunable(base)
    _check_room(base, tuning)
    tuning.check_servable(base)


def row_tokens(base: Base, tuning: TuningSettings) -> int:
    """How many tokens a row may have: the base's context without the positions that the tuning takes for itself."""
    return base.context_tokens - tuning.prefix_tokens


def _check_room(base: Base, tuning: TuningSettings) -> None:
    """Raises InvalidRequest where the tuning leaves a row fewer tokens than the smallest base has."""
    if row_tokens(base, tuning) < LEAST_CONTEXT_TOKENS:
        raise InvalidRequest(
            f"The tuning takes {tuning.prefix_tokens} of the {base.context_tokens} tokens of context of '{base.id}', "
            f"and must leave rows {LEAST_CONTEXT_TOKENS} or more: choose fewer, or a base with a longer context.",
            param=f"tuning.{tuning.name}",
        )


def continued_tuning(parent: TuningSettings, asked: TuningSettings | None) -> TuningSettings:
    """The tuning of a job that continues a model: the parent's, for its weights must fit, but for what may change.

    What `asked` leaves out is the parent's. Raises InvalidRequest, which names the setting that differs.
    """
    if asked is None:
        return parent
    if asked.name != parent.name:
        raise _other_shape("tuning.type", asked.name, parent.name)
    before, after = dict(parent), dict(asked)
    for name in asked.model_fields_set - asked.changeable:
        if _unordered(after[name]) != _unordered(before[name]):
            raise _other_shape(f"tuning.{asked.name}.{name}", after[name], before[name])
    return parent.model_copy(update={name: after[name] for name in asked.model_fields_set})


def _unordered(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value


def _other_shape(param: str, asked: object, parent: object) -> InvalidRequest:
    return InvalidRequest(
        f"A job that continues a model has that model's tuning: '{param}' is {parent!r} there, not {asked!r}. "
        "Leave it out, or start from the base.",
        param=param,
    )
