"""One trained turn as text: the prompt that an engine gets, and the answer that the base should generate with its end.

The turn is rendered twice: the conversation before it with the generation prompt, and the conversation including it.
What the second text adds to the first is the answer. Three cases need care, and none is guessed:

- the generation prompt already begins the answer (<think>): that part is prompt, and the answer continues after it;
- the template removes thoughts from finished answers: the base generates them all the same, so they are trained;
- the template shows the conversation differently once it has an answer: the prompt is the one that an engine gets.

Handles text only; `workers.data.render` tokenises it.
"""

import re

from service.domain.json import JsonObject
from workers.data.complete import find_words, left_out, words_of
from workers.data.messages import REASONING, Messages, RenderError, Tools
from workers.data.template import MARK, ChatTemplate, shared_start
from workers.data.whole_rendering import Beginnings

LETTERS_SHOWN = 80  # of a prompt in an error message
_FIRST_TAG = re.compile(r"\s*(<[^<>/\s|｜]+>)")
_LAST_TAG = re.compile(r"<([^<>/\s|｜]+)>\s*$")


def trained_turn(
    template: ChatTemplate, messages: Messages, tools: Tools | None, beginnings: Beginnings | None = None
) -> tuple[str, str]:
    """The prompt before the last message, and that message with the token that ends it. Raises RenderError.

    `beginnings` are those of a conversation that begins with these messages, where they are known.
    """
    turn = _Turn(template, messages, tools, beginnings)
    answer = turn.answer()
    return turn.prompt, answer


class _Turn:
    def __init__(
        self, template: ChatTemplate, messages: Messages, tools: Tools | None, beginnings: Beginnings | None
    ) -> None:
        self._template = template
        self._tools = tools
        self._field = f"messages[{len(messages) - 1}]"
        if len(messages) == 1:
            reason = "has no message before it to respond to; add a user message before it, or set its weight to 0"
            raise RenderError(self._field, reason)
        self._before = messages[:-1]
        prompt = None if beginnings is None else beginnings.render(len(self._before), answer_next=True)
        self.prompt = template.render(self._before, tools, answer_next=True) if prompt is None else prompt
        self._message = self._with_thoughts_apart(messages[-1])
        self._through = None  # the text with the last message, where it is known
        if beginnings is not None and self._message is messages[-1]:
            self._through = beginnings.render(len(messages), answer_next=False)

    def answer(self) -> str:
        """The text that the base should generate after `prompt`."""
        through = self._render(self._message) if self._through is None else self._through
        if through.startswith(self.prompt):
            said = through[len(self.prompt) :]
        else:
            said = self._no_thoughts(through) or self._behind_another_prompt(through) or self._continued()
        missing = self._missing(said)
        if missing and missing[0].endswith(".content") and _FIRST_TAG.match(self._message["content"]):
            said = self._continued()
            missing = self._missing(said)
        if missing:
            raise RenderError(missing[0], left_out(self._template, *missing))
        return self._ended(self._without_second_tag(said))

    def _with_thoughts_apart(self, message: JsonObject) -> JsonObject:
        """The message with the thoughts of its content in their own field; else the template may cut or repeat them."""
        content, tags = message["content"], self._template.thought_tags
        if tags is None or message.get(REASONING) or tags[1] not in content:
            return message
        thoughts, _, rest = content.partition(tags[1])
        if thoughts.lstrip().startswith(tags[0]):
            thoughts = thoughts.lstrip().removeprefix(tags[0])
        elif tags[0] in thoughts or not self.prompt.rstrip().endswith(tags[0]):
            return message
        return message | {REASONING: thoughts.strip("\n"), "content": rest.lstrip("\n")}

    def _no_thoughts(self, through: str) -> str | None:
        """The answer in `through` if it closes the generation prompt's tag at once and only space between differs."""
        prompt = self.prompt.rstrip()
        tag = _LAST_TAG.search(prompt)
        closes = tag is not None and through[len(prompt) :].lstrip().startswith(f"</{tag[1]}>")
        return through[len(prompt) :] if closes and through.startswith(prompt) else None

    def _behind_another_prompt(self, through: str) -> str | None:
        """The answer in `through` if only the text before the generation prompt is shown differently."""
        generation = self._generation()
        shared = shared_start(through, self._marked()[0])
        at = shared.rfind(generation) if generation.strip() else -1
        last = self._before[-1]["content"]
        if at < 0 or not last or find_words(through[:at], last) < 0:
            return None
        return through[at + len(generation) :]

    def _continued(self) -> str:
        """The content as a continuation of the generation prompt, with the text that the template writes after it."""
        opening, closing = self._marked()
        if not self.prompt.startswith(opening) or self._message.get(REASONING):
            raise self._begins_otherwise()
        prefilled = self.prompt[len(opening) :]
        if self._template.text.special.search(prefilled):
            raise self._begins_otherwise()
        rest = _behind(prefilled, self._message["content"])
        if rest is None:
            raise RenderError(f"{self._field}.content", _advice(prefilled))
        return rest + closing

    def _marked(self) -> tuple[str, str]:
        """The rendered text before and after the content of this message, without its reasoning."""
        plain = {key: value for key, value in self._message.items() if key != REASONING}
        opening, mark, closing = self._render(plain | {"content": MARK}).partition(MARK)
        if not mark:
            raise self._begins_otherwise()
        return opening, closing

    def _generation(self) -> str:
        """The text that the template adds to the conversation to begin an answer."""
        bare = self._template.render(self._before, self._tools, answer_next=False)
        return self.prompt[len(bare) :] if self.prompt.startswith(bare) else ""

    def _begins_otherwise(self) -> RenderError:
        prompt = self._generation() or self.prompt[-LETTERS_SHOWN:]
        reason = (
            "the base's chat template begins this answer differently from its generation prompt, which ends with "
            f"{prompt[-LETTERS_SHOWN:]!r}; "
        )
        reason += "remove the reasoning" if self._message.get(REASONING) else "use another base"
        return RenderError(self._field, reason)

    def _missing(self, said: str) -> tuple[str, str] | None:
        """Field and name of the first part of the user's words that `said` lacks."""
        for field, what, words in words_of(self._message, self._field):
            if find_words(said, words) < 0 and not self._continues(words, said):
                return field, what if what.startswith("the names") else f"part of {what}"
        return None

    def _continues(self, words: str, said: str) -> bool:
        """Whether `words` begin with the generation prompt's end and continue in `said`."""
        tag = _FIRST_TAG.match(words)
        if tag is None or not self.prompt.rstrip().endswith(tag[1]):
            return False
        return said.strip().startswith(words[tag.end() :].strip())

    def _without_second_tag(self, said: str) -> str:
        """`said` without its first tag, if the generation prompt already ends with it.

        Raises RenderError if the template writes that tag before the content in any other way.
        """
        content = self._message["content"].strip()
        tag, at = _FIRST_TAG.match(content), said.find(content)
        if tag is None or at < 0:
            return said
        last_special = [match.end() for match in self._template.text.special.finditer(self.prompt)]
        prefilled = self.prompt[last_special[-1] if last_special else 0 :]
        if tag[1] not in prefilled + said[:at]:
            return said
        if not said[:at].strip() and prefilled.rstrip().endswith(tag[1]):
            return said[at + len(tag[0]) :].lstrip("\n")
        shown = (prefilled + said[:at])[-LETTERS_SHOWN:]
        instead = 'give the reasoning as "reasoning_content"' if self._template.dialect.reasoning else "remove the tag"
        reason = f"begins with {tag[1]!r}, but the base's chat template writes {shown!r} before it; {instead}"
        raise RenderError(f"{self._field}.content", reason)

    def _ended(self, said: str) -> str:
        """`said` up to and including the token that ends it."""
        template = self._template
        words = (find_words(said, words) for _, _, words in words_of(self._message, self._field))
        for token in template.text.special.finditer(said, max(words, default=0)):
            if token[0] in template.ends:
                return said[: token.end()]
        if following := template.following(called="tool_calls" in self._message):
            return said + following
        reason = f"the base's chat template does not end this answer with {template.end_of_turn!r}; use another base"
        raise RenderError(self._field, reason)

    def _render(self, message: JsonObject) -> str:
        return self._template.render([*self._before, message], self._tools, answer_next=False)


def _behind(prefilled: str, content: str) -> str | None:
    """The rest of `content` after the beginning that the generation prompt has; None if it begins differently."""
    if content.startswith(prefilled):
        return content[len(prefilled) :]
    if content.lstrip().startswith(prefilled.strip()):
        return content.lstrip()[len(prefilled.strip()) :].lstrip("\n")
    tag = _LAST_TAG.search(prefilled)
    continues = tag is not None and f"</{tag[1]}>" in content and f"<{tag[1]}>" not in content
    return content.lstrip("\n") if continues else None


def _advice(prefilled: str) -> str:
    begun = f"the base's generation prompt already begins the answer with {prefilled!r};"
    tag = _LAST_TAG.search(prefilled)
    if tag is None:
        return f"{begun} begin the content with the same text"
    return (
        f"{begun} write the content as '<{tag[1]}>\\n...\\n</{tag[1]}>\\n\\n...', the reasoning first, then the answer"
    )
