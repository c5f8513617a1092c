"""Whether a tuning can tune a base, by family and kind: what docs/compatibility.md says and tests prove."""

from functools import cache

from service.domain.errors import InvalidRequest, JobError
from service.recipes.base import Base, Serving
from service.recipes.tuning import tuning_of
from tests.given.encoder_decoders import ENCODER_DECODERS, load_encoder_decoder
from tests.given.encoders import ENCODERS, load_encoder
from tests.given.families import load_family
from tests.given.tunings import KINDS
from workers.model.load import LoadedBase
from workers.model.nf4 import quantise
from workers.tunings import create_tuning


@cache
def family(name: str) -> LoadedBase:
    """The one base of that family in this process, which writes text; whoever uses it leaves no trace."""
    return load_encoder_decoder(name) if name in ENCODER_DECODERS else load_family(name)


@cache
def encoder(name: str) -> LoadedBase:
    """The same of a family of encoders."""
    return load_encoder(name)


def encoder_refusal(name: str, kind: str) -> str:
    """As `refusal`, for a family of encoders."""
    return _refusal(encoder(name), kind)


def refusal(name: str, kind: str) -> str:
    """Why a base of that family cannot have that tuning, as the job's error says it; empty: it can."""
    return _refusal(family(name), kind)


@cache
def packed(name: str) -> LoadedBase | str:
    """The base of that family, of encoders too, in 4 bits; or why it cannot be."""
    found = load_encoder(name) if name in ENCODERS else load_family(name)
    try:
        quantise(found.model)
    except ValueError as error:
        return str(error)
    return found


def packed_refusal(name: str, kind: str) -> str:
    """As `refusal`, for a base with `quantization = "nf4"`."""
    found, settings = packed(name), tuning_of(KINDS[kind])
    if isinstance(found, str):
        return f"The base is refused: {found}."
    serving = Serving(tunings=frozenset({"lora"}))
    entry = Base(id=name, source=name, context_tokens=64, quantization="nf4", serving=serving)
    if name in ENCODERS and "encoder" not in settings.kinds:
        return encoder_refusal(name, kind)
    try:
        settings.check_tunable(entry)
    except InvalidRequest as error:
        return error.message.replace(f"'{name}'", "the base")
    return _refusal(found, kind)


def _refusal(base: LoadedBase, kind: str) -> str:
    settings = tuning_of(KINDS[kind])
    if base.kind not in settings.kinds:
        return f"The tuning '{settings.name}' is for bases of the kind: {', '.join(sorted(settings.kinds))}."
    tuning = create_tuning(settings, base.model, "tried")
    try:
        tuning.attach()
    except JobError as error:
        return error.message
    tuning.detach()
    return ""
