"""The form in which a tuned model is served, where that is another than the one that is trained: a LoRA.

On the wire these are fields of a job's `tuning`, beside its type; in a job's row they are there too, resolved. What is
trained is kept as it is; engines get the LoRA that is computed from it (`workers.tunings.lora_form`). Without tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from service.recipes.base import Base
from service.recipes.fields import Integer, MethodFields, Number, Whole
from service.recipes.tuning import SERVED_FORM_FIELDS, TUNINGS, TuningSettings

FormName = Literal["lora"]
MinShare = Annotated[Number, Field(ge=0, le=1)]
FormRank = Annotated[Annotated[Integer, Field(ge=1, le=512)], Whole]


class ServedForm(MethodFields):
    """A job's, resolved."""

    serve_as: FormName = Field("lora", description="the form that engines serve")
    serve_rank: FormRank = Field(description="rank of that LoRA")
    serve_min_share: MinShare = Field(
        0.9,
        description="a model is refused where its LoRA keeps less than this share of the squared norm of what the "
        "training changed",
    )

    def stored(self) -> JsonObject:
        """Beside the tuning in a row of the database; `form_of` reads it."""
        return self.model_dump()


@dataclass(frozen=True)
class AskedForm:
    """What a request says of it; None: nothing."""

    serve_as: FormName | None = None
    serve_rank: int | None = None
    serve_min_share: float | None = None


def form_of(tuning: Mapping[str, Any]) -> ServedForm | None:
    """What a job's stored `tuning` says of it; None: the model is served as it is trained."""
    given = {name: tuning[name] for name in SERVED_FORM_FIELDS if name in tuning}
    return ServedForm.model_validate(given) if given else None


def resolved_form(
    base: Base, tuning: TuningSettings, asked: AskedForm | None, parent: ServedForm | None = None
) -> ServedForm | None:
    """What a new job's model is served as; `parent` is that of the model that it continues. Raises InvalidRequest.

    Without a rank: that of the LoRA that computes the same, or the highest that the base's engines serve.
    """
    asked = asked or AskedForm()
    wanted = asked.serve_as is not None or asked.serve_rank is not None
    if not wanted and parent is None:
        if asked.serve_min_share is not None:
            message = "'serve_min_share' is of a model that is served in another form: give serve_as or serve_rank too."
            raise InvalidRequest(message, param="tuning.serve_min_share")
        return None
    tuning.check_lora_form()
    most = base.serving.max_rank if tuning.lora_rank is None else tuning.lora_rank
    rank = asked.serve_rank or (parent.serve_rank if parent else most)
    share = {} if parent is None else {"serve_min_share": parent.serve_min_share}
    share |= {} if asked.serve_min_share is None else {"serve_min_share": asked.serve_min_share}
    form = ServedForm(serve_rank=rank if tuning.lora_rank is None else min(rank, most), **share)
    check_form(base, tuning, form)
    return form


def check_form(base: Base, tuning: TuningSettings, form: ServedForm) -> None:
    """Raises InvalidRequest where the engines of `base` could not serve the tuning in that form."""
    tuning.check_lora_form()
    tuning.check_tunable(base)
    if form.serve_as not in base.serving.tunings:
        raise InvalidRequest(f"The engines of '{base.id}' do not serve '{form.serve_as}'.", param="tuning.serve_as")
    if base.kind not in tuning.kinds:
        able = [other.name for other in TUNINGS if base.kind in other.kinds]
        raise InvalidRequest(
            f"The tuning '{tuning.name}' cannot tune '{base.id}', which is of the kind '{base.kind}'; use one of: "
            f"{', '.join(able)}.",
            param="tuning.type",
        )
    if form.serve_rank > base.serving.max_rank:
        what = "the one that computes the same has" if form.serve_rank == tuning.lora_rank else "the job asks for"
        raise InvalidRequest(
            f"The engines of '{base.id}' serve LoRA up to rank {base.serving.max_rank}; {what} rank {form.serve_rank}. "
            f"Give a serve_rank of at most {base.serving.max_rank}: what that costs is measured.",
            param="tuning.serve_rank",
        )
