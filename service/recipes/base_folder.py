"""What the files of a base say before it is loaded: whether they are there and whole, and whether it can chat.

A missing or half-copied folder becomes one sentence, wherever a base is used: at `luthierd up`, in `doctor`, in
trainers and engines. Reads names and JSON only, with no model library. Nothing is found about a base of a hub.
"""

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from service.recipes.base import Base

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SIMILAR = 0.8


def names_folder(source: str, beside: Path) -> bool:
    """Whether `source` in a catalogue in the folder `beside` means a folder, there or misspelt, and no hub id.

    A hub id is `name` or `owner/name`. It means a folder all the same where `owner` is one, or where one has nearly
    that `name`: to ask a hub for somebody's misspelt path would be wrong.
    """
    if (beside / Path(source).expanduser()).exists() or _HUB_ID.fullmatch(source) is None:
        return True
    first, _, rest = source.partition("/")
    if rest:
        return (beside / first).is_dir()
    folders = [path.name for path in beside.iterdir() if path.is_dir()] if beside.is_dir() else []
    return bool(difflib.get_close_matches(source, folders, n=1, cutoff=SIMILAR))


def folder_problems(base: Base) -> list[str]:
    """Why the base's folder cannot be loaded, each reason as a sentence with what to do; empty for a hub's."""
    folder = Path(base.source)
    return [f"The base '{base.id}' {problem}" for problem in _problems(folder)] if folder.is_absolute() else []


def has_chat_template(base: Base) -> bool | None:
    """Whether the base's folder holds a chat template; None for a hub's, which is not looked at."""
    folder = Path(base.source)
    if not folder.is_absolute():
        return None
    return any((folder / name).exists() for name in TEMPLATES) or bool(
        _json(folder / "tokenizer_config.json").get("chat_template")
    )


def _problems(folder: Path) -> Iterator[str]:
    if folder.is_file() and folder.suffix == ".gguf":
        yield f"has the GGUF file {folder} as its source: `luthierd bases add` makes a folder of it."
        return
    if not folder.is_dir():
        yield f"has no folder {folder}{nearest(folder)}: correct `source` in the catalogue."
        return
    if not _json(folder / "config.json"):
        yield f"has no config.json that can be read in {folder}: copy the model's whole folder."
    if not any(folder.glob("*.safetensors")):
        pickled = " (it has other weights, which are not read: convert them)" if any(folder.glob("*.bin")) else ""
        yield f"has no weights as *.safetensors in {folder}{pickled}: copy the model's whole folder."
    if not any((folder / name).exists() for name in TOKENIZERS):
        yield f"has no tokenizer in {folder}: copy the model's whole folder."


def nearest(folder: Path) -> str:
    """A folder beside it that has nearly the same name."""
    if not folder.parent.is_dir():
        return ""
    names = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    near = difflib.get_close_matches(folder.name, names, n=1)
    return f", but {near[0]} beside it" if near else ""


def _json(path: Path) -> dict[str, object]:
    """The file's object; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
