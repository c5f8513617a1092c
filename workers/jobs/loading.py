"""Loading what a job needs of its base on this worker, with one error for every failure."""

from service.recipes.base import Base
from service.recipes.base_folder import folder_problems
from workers.data.base_text import BaseText
from workers.data.content_key import text_digest
from workers.model.load import load_text


class BaseNotLoaded(Exception):
    """This worker cannot load the base. The job is not the cause; another worker may be able to."""

    def __init__(self, base_id: str, reason: str) -> None:
        super().__init__(f"{base_id}: {reason}")
        self.base_id = base_id
        self.reason = reason


class Tokenizers:
    """The tokenizers of the bases that this worker holds, each loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, BaseText] = {}
        self._digests: dict[str, str] = {}

    def of(self, base: Base) -> BaseText:
        """Blocks while it loads. Raises BaseNotLoaded."""
        if base.id not in self._loaded:
            try:
                self._loaded[base.id] = load_text(base)
            except Exception as error:  # transformers raises many kinds of errors for a folder without a model
                reason = f"its tokenizer cannot be loaded ({type(error).__name__})"
                raise BaseNotLoaded(base.id, " ".join([reason, *folder_problems(base)])) from error
        return self._loaded[base.id]

    def digest(self, base: Base) -> str:
        """The base's `text_digest`. Blocks. Raises BaseNotLoaded."""
        if base.id not in self._digests:
            self._digests[base.id] = text_digest(self.of(base))
        return self._digests[base.id]
