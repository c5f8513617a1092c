"""From names of the document to names of Python."""

import keyword
import re


def words(text: str) -> list[str]:
    """`listFineTuningEvents`, `fine-tuning`, `CursorList_FileObject_`: their words, in lower case."""
    parted = re.sub(r"([a-z0-9])([A-Z])|([A-Z])(?=[A-Z][a-z])", r"\1\3 \2", text)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", parted) if word]


def camel(text: str) -> str:
    """A class's name. A name that is one already stays as it is."""
    parts = re.split(r"[^A-Za-z0-9]+", text)
    return "".join(part[0].upper() + part[1:] for part in parts if part)


def identifier(text: str) -> str:
    """A name of Python. What is one already stays as it is."""
    name = text if text.isidentifier() else "_".join(words(text))
    return f"{name}_" if keyword.iskeyword(name) or name == "self" else name
