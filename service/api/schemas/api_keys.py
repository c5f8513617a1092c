"""API keys as other objects name them: never the key itself."""

from pydantic import BaseModel


class ApiKeyReference(BaseModel):
    """The API key that did something, and its name at that time."""

    id: str
    name: str
