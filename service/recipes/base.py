"""A base model as the catalogue lists it, and what its engines can serve. Read by `service.recipes.catalogue`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.recipes.tasks import TaskName

EngineKind = Literal["embedded", "vllm"]


class Serving(BaseModel):
    """What the engines of a base can serve. A field's description is what an operator may write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineKind = Field("embedded", description='"embedded" or "vllm"')
    engines: tuple[str, ...] = Field(  # empty: by the rule of `service.recipes.engines`
        (), description='the URLs of its engines, as in ["http://a:8000"]'
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
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description="a name of letters, digits, '.', '_', '/' and '-' that begins with a letter or digit",
    )
    aliases: tuple[str, ...] = Field((), description="other names of the base, in a list")
    task: TaskName = Field("causal", description='"causal"')
    source: str = Field(min_length=1, description="a folder, relative to the catalogue, or a hub id")
    revision: str = Field("", description="a commit of the hub, or nothing")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description='"float32" or "bfloat16"')
    context_tokens: int = Field(ge=16, description="a whole number of tokens, at least 16")
    learning_rate: dict[str, float] = Field(  # of a tuning that is not here: by its own rule
        {}, description="a table of numbers by tuning"
    )
    serving: Serving = Field(description='a table such as { tunings = ["..."] }')

    @property
    def public_source(self) -> str:
        """The source as strangers may see it: a hub id, or a folder's name without its path."""
        return Path(self.source).name if Path(self.source).is_absolute() else self.source
