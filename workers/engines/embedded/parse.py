"""From a request to choices: prompts become token ids, and what the base cannot do is refused before anything runs.

Independent of what else is being generated. The ids come from the code that training uses.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.errors import InvalidRequest
from service.recipes.base import Base
from workers.data.messages import RenderError
from workers.data.render import Renderer, encode_chat, encode_prompt
from workers.data.template import ChatTemplate
from workers.data.two_sides import has_two_sides
from workers.engines.embedded.choice import Choice
from workers.engines.embedded.vocabulary import Vocabulary
from workers.engines.embedded.wire import (
    CHOICES_LIMIT,
    ChatMessage,
    ChatRequest,
    ClassificationRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from workers.model.adapters import Adapter
from workers.model.generate import BatchRow, num_virtual_tokens
from workers.model.load import LoadedBase

COMPLETION_TOKENS = 16  # OpenAI's default of `max_tokens`


@dataclass(frozen=True)
class Order:
    """What a request asks for: the choices of every prompt, and how many tokens the prompts have."""

    prompts: Sequence[Sequence[Choice]]
    prompt_tokens: int


class RequestParser:
    """Reads requests for one base."""

    def __init__(self, base: Base, loaded: LoadedBase, vocabulary: Vocabulary) -> None:
        self._context_tokens = base.context_tokens
        self._hidden_size = loaded.model.config.get_text_config().hidden_size
        self._base_text = loaded.text
        self._template = ChatTemplate(loaded.text)
        self._vocabulary = vocabulary

    async def completion(self, request: CompletionRequest, adapter: Adapter | None) -> Order:
        """Raises InvalidRequest."""
        if len(request.prompts) * request.n > CHOICES_LIMIT:
            param = "prompt" if len(request.prompts) > CHOICES_LIMIT else "n"
            raise InvalidRequest(f"'n' times the number of prompts is at most {CHOICES_LIMIT}.", param=param)
        self._check_sides(request)
        prompts: list[list[Choice]] = []
        prompt_tokens = 0
        for prompt in request.prompts:
            ids = await self._ids(prompt)
            prompts.append(self._completion_choices(request, prompt, ids, adapter, first=len(prompts) * request.n))
            prompt_tokens += len(ids)
        return Order(prompts, prompt_tokens)

    async def chat(self, request: ChatRequest, adapter: Adapter | None) -> Order:
        """Raises InvalidRequest."""
        ids = await self._conversation(request.messages, adapter)
        room = self._room(ids, request.token_limit, adapter, "messages")
        limit = room if request.token_limit is None else request.token_limit
        choices = []
        for index in range(request.n):
            row = BatchRow(ids, request.sampling(index), adapter, num_top=request.num_top, ends=limit == 0)
            choices.append(Choice(index, row, limit, self._vocabulary, stops=request.stops))
        return Order([choices], len(ids))

    def _check_sides(self, request: CompletionRequest) -> None:
        """Raises InvalidRequest for what a base of this kind has not."""
        two_sided = has_two_sides(self._base_text)
        if request.written is not None and not two_sided:
            raise InvalidRequest("Unsupported parameter: 'written'.", param="written", code="unsupported_parameter")
        if request.written is None and two_sided and request.echo and request.logprobs is not None:
            raise InvalidRequest(
                "This model's base reads the prompt as a whole and gives its tokens no probabilities: leave out 'echo' "
                "or 'logprobs'.",
                param="echo",
            )

    async def texts(self, request: ClassificationRequest, adapter: Adapter) -> list[list[int]]:
        """The tokens of every text, or of the one conversation. Raises InvalidRequest."""
        assert adapter.head is not None
        if request.messages is not None and adapter.head.config.problem_type == "regression":
            rows = [await self._answered(request.messages, adapter)]
        elif request.messages is not None:
            rows = [await self._conversation(request.messages, adapter)]
        else:
            rows = [await self._ids(text, "input") for text in request.inputs]
        where = "messages" if request.messages is not None else "input"
        for ids in rows:
            self._room(ids, 0, adapter, where)
        return rows

    async def embedded_texts(self, request: EmbeddingRequest, adapter: Adapter | None) -> list[list[int]]:
        """The tokens of every text. Raises InvalidRequest."""
        if request.dimensions not in (None, self._hidden_size):
            raise InvalidRequest(
                f"This model's vectors have {self._hidden_size} dimensions, and it was not trained to be understood by "
                f"fewer: leave 'dimensions' out, or send {self._hidden_size}.",
                param="dimensions",
                code="invalid_value",
            )
        rows = [await self._ids(text, "input") for text in request.inputs]
        for ids in rows:
            self._room(ids, 0, adapter, "input")
        return rows

    async def _answered(self, given: Sequence[ChatMessage], adapter: Adapter) -> list[int]:
        """A conversation with its answer, as a reward model was trained on them."""
        messages = [message.model_dump(exclude_none=True) for message in given]
        renderer = Renderer(self._base_text, day=adapter.template_date)
        try:
            return await asyncio.to_thread(renderer.answered, messages)
        except RenderError as error:
            raise InvalidRequest(f"The conversation cannot be scored: {error}.", param="messages") from error

    async def _conversation(self, given: Sequence[ChatMessage], adapter: Adapter | None) -> list[int]:
        messages = [message.model_dump(exclude_none=True) for message in given]
        try:
            template = self._template.on(adapter.template_date) if adapter else self._template
            return await asyncio.to_thread(encode_chat, template, messages)
        except RenderError as error:
            param = error.field or "messages"
            raise InvalidRequest(f"The conversation cannot be shown to the base: {error}.", param=param) from error

    def _completion_choices(
        self,
        request: CompletionRequest,
        prompt: str | list[int],
        ids: Sequence[int],
        adapter: Adapter | None,
        first: int,
    ) -> list[Choice]:
        written = request.written or []
        room = self._room([*ids, *written], request.max_tokens, adapter, "prompt")
        limit = min(room, COMPLETION_TOKENS) if request.max_tokens is None else request.max_tokens
        echo = self._text(prompt) if request.echo else ""
        scored = request.echo and request.logprobs is not None
        choices = []
        for index in range(request.n):
            row = BatchRow(
                ids, request.sampling(index), adapter, num_top=request.logprobs, score_prompt=scored, ends=limit == 0,
                written=written,
            )  # fmt: skip
            choices.append(Choice(first + index, row, limit, self._vocabulary, stops=request.stops, echo=echo))
        return choices

    async def _ids(self, prompt: str | list[int], field: str = "prompt") -> list[int]:
        if isinstance(prompt, str):
            try:
                ids = await asyncio.to_thread(encode_prompt, self._base_text, prompt)
            except RenderError as error:
                raise InvalidRequest(
                    f"The {field} cannot be shown to the base: it {error.reason}.", param=field
                ) from error
            if not ids:
                raise InvalidRequest(f"The {field} is empty, and the base has no token to begin with.", param=field)
            return ids
        if max(prompt) >= self._vocabulary.size:
            raise InvalidRequest(
                f"The {field} holds the token {max(prompt)}; the base's tokens are 0 to {self._vocabulary.size - 1}.",
                param=field,
            )
        return prompt

    def _text(self, prompt: str | list[int]) -> str:
        if isinstance(prompt, str):
            return prompt
        text: str = self._vocabulary.tokenizer.decode(prompt, skip_special_tokens=True)
        return text

    def _room(self, ids: Sequence[int], wanted: int | None, adapter: Adapter | None, where: str) -> int:
        """How many tokens can follow the prompt. Raises InvalidRequest where it is fewer than wanted."""
        virtual = num_virtual_tokens(adapter)
        room = self._context_tokens - virtual - len(ids)
        if room >= (1 if wanted is None else wanted):
            return room
        own = f", {virtual} of which the model's own prompt takes" if virtual else ""
        raise InvalidRequest(
            f"This model's maximum context length is {self._context_tokens} tokens{own}. However, you requested "
            f"{len(ids) + (wanted or 0)} tokens ({len(ids)} in the {where}, {wanted or 0} in the completion). "
            f"Please reduce the length of the {where} or completion.",
            param=where,
            code="context_length_exceeded",
        )
