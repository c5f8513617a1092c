"""A base model as the catalogue lists it, and what its engines can serve. Read by `service.recipes.catalogue`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.recipes.tasks import BaseKind
from service.settings.urls import http_url

EngineKind = Literal["embedded", "vllm"]
Quantization = Literal["nf4"]
LEAST_CONTEXT_TOKENS = 16
BASE_NAME_LIMIT = 255
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"


def is_base_name(text: str) -> bool:
    """Whether a base may have `text` as its id or as an alias; a tuned model's name never is one."""
    return re.fullmatch(_NAME, text) is not None and len(text) <= BASE_NAME_LIMIT


class Serving(BaseModel):
    """What the engines of a base can serve. A field's description is what an operator may write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineKind = Field("embedded", description='"embedded" or "vllm"')
    engines: tuple[Annotated[str, Field(min_length=1), AfterValidator(http_url)], ...] = (
        Field(  # empty: by the rule of `service.recipes.engines`
            (), description='the URLs of its engines, as in ["http://a:8000"]'
        )
    )
    tunings: frozenset[str] = Field(description="the tunings that its engines serve, in a list")
    max_rank: int = Field(64, ge=1, le=512, description="the highest rank of an adapter, from 1 to 512")
    tool_call_parser: str = Field(
        "", pattern=r"^[A-Za-z0-9_-]*$", description='the name of a parser of vLLM, such as "hermes"'
    )


class Base(BaseModel):
    """One base model. See `service/bases.toml` for what the fields mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(
        pattern=_NAME,
        description="a name of letters, digits, '.', '_', '/' and '-' that begins with a letter or digit",
    )
    aliases: tuple[Annotated[str, StringConstraints(pattern=_NAME)], ...] = Field(
        (), description="other names of the base, each of letters, digits, '.', '_', '/' and '-', in a list"
    )
    kind: BaseKind = Field("causal", description='"causal", "encoder" or "encoder-decoder"')
    source: str = Field(min_length=1, description="a folder, relative to the catalogue, or a hub id")
    revision: str = Field("", description="a commit of the hub, or nothing")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description='"float32" or "bfloat16"')
    quantization: Quantization | None = Field(None, description='"nf4", or leave it out')
    context_tokens: int = Field(ge=LEAST_CONTEXT_TOKENS, description="a whole number of tokens, at least 16")
    learning_rate: dict[str, float] = Field(  # of a tuning that is not here: by its own rule
        {}, description="a table of numbers by tuning"
    )
    serving: Serving = Field(description='a table such as { tunings = ["..."] }')

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, data: Any) -> Any:
        """`kind` was called `task` when it had one value."""
        if isinstance(data, dict) and "task" in data and "kind" not in data:
            return {("kind" if name == "task" else name): value for name, value in data.items()}
        return data

    @property
    def public_source(self) -> str:
        """The source as strangers may see it: a hub id, or a folder's name without its path."""
        return Path(self.source).name if Path(self.source).is_absolute() else self.source
