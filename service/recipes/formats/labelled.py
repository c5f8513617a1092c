"""Texts with their labels, for classification: one label each, or any number of them."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row
from service.recipes.formats.chat import MESSAGES_LIMIT, FilledText, Message

LABELS_LIMIT = 512  # different labels of a file
ROW_LABELS_LIMIT = 64
ANNOTATORS_LIMIT = 256  # different annotators of a file, and votes of a row
VOTED_LABELS_LIMIT = 64  # different labels of a file with votes
LABEL_LIMIT = 256


def _each_once(names: list[str]) -> list[str]:
    if doubled := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise PydanticCustomError("labels", 'names "{name}" twice; remove one of them', {"name": doubled})
    return names


LabelName = Annotated[str, StringConstraints(min_length=1, max_length=LABEL_LIMIT)]


class LabelledRow(Row):
    """What is read, and what it is. A row's spelling says both; `weight` is how much the row counts."""

    weight: Weight | None = None

    @property
    def content(self) -> str | list[Message]:
        """The text, or the conversation."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        """The labels that are true of it; of a row with votes those that were given."""
        raise NotImplementedError

    @property
    def field(self) -> str:
        """Where its labels stand."""
        return "labels" if self.has_several else "label"

    @property
    def has_several(self) -> bool:
        """Whether it is a row of a file in which several labels may be true of one text, or none."""
        raise NotImplementedError


class _OneLabel(LabelledRow):
    label: LabelName

    @property
    def names(self) -> list[str]:
        return [self.label]

    @property
    def has_several(self) -> bool:
        return False


class _Labels(LabelledRow):
    labels: Annotated[list[LabelName], Field(max_length=ROW_LABELS_LIMIT), AfterValidator(_each_once)]

    @property
    def names(self) -> list[str]:
        return self.labels

    @property
    def has_several(self) -> bool:
        return True


class VotedRow(LabelledRow):
    """What several annotators say of it: annotator -> label. Which one is true is estimated from the whole file."""

    votes: Annotated[dict[LabelName, LabelName], Field(min_length=1, max_length=ANNOTATORS_LIMIT)]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(self.votes.values()))

    @property
    def field(self) -> str:
        return "votes"

    @property
    def has_several(self) -> bool:
        return False


class _Text(LabelledRow):
    text: FilledText

    @property
    def content(self) -> str:
        return self.text


class _Prompt(LabelledRow):
    prompt: FilledText

    @property
    def content(self) -> str:
        return self.prompt


class _Conversation(LabelledRow):
    messages: list[Message] = Field(min_length=1, max_length=MESSAGES_LIMIT)

    @property
    def content(self) -> list[Message]:
        return self.messages


class TextWithLabel(_Text, _OneLabel):
    """A text with one label."""


class TextWithLabels(_Text, _Labels):
    """A text with several labels."""


class PromptWithLabel(_Prompt, _OneLabel):
    """The same under another name of the text."""


class PromptWithLabels(_Prompt, _Labels):
    """The same with several labels."""


class ConversationWithLabel(_Conversation, _OneLabel):
    """A conversation with one label."""


class ConversationWithLabels(_Conversation, _Labels):
    """A conversation with several labels."""


class TextWithVotes(_Text, VotedRow):
    """A text with the labels that several annotators give it."""


class PromptWithVotes(_Prompt, VotedRow):
    """The same under another name of the text."""


class ConversationWithVotes(_Conversation, VotedRow):
    """A conversation with the labels that several annotators give it."""


@FORMATS.register
class Labelled(Format):
    """`{"text": ..., "label": "name"}`: a text and its label; `prompt` is another word for `text`, and `messages` is a
    conversation, which the base's chat template writes. `{"text": ..., "labels": ["name", ...]}`: any number of labels
    is true of a text, none of them too; a file has rows of one of these two kinds. `{"text": ..., "votes":
    {"annotator": "name", ...}}`: labels of several annotators, people or rules, of which one is true; rows with a
    `label` may be mixed with them: their label is certain.
    """

    name: ClassVar[str] = "classification"
    rows: ClassVar[str] = "texts with labels"
    models: ClassVar[tuple[type[Row], ...]] = (
        TextWithLabel,
        TextWithLabels,
        PromptWithLabel,
        PromptWithLabels,
        ConversationWithLabel,
        ConversationWithLabels,
        TextWithVotes,
        PromptWithVotes,
        ConversationWithVotes,
    )
