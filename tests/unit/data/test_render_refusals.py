"""What a base cannot show or learn is refused with its place; what an engine sends goes the same way."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.given.templates import chat_template, tokenizer_for
from tests.given.templates.rendering import (
    ANSWERS,
    CALL,
    CONVERSATION,
    TOOL,
    altered,
    refused,
    render,
    template_for,
    trained_texts,
)
from workers.data.messages import RenderError
from workers.data.render import encode_chat


def test_a_template_that_leaves_something_out_is_told_with_its_place() -> None:
    llama, bundled = tokenizer_for("llama3"), tokenizer_for("bundled")
    call = {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]}
    leaves_out = "the base's chat template leaves out {}; remove this part or use another base"
    names = ("messages[1].tool_calls[0]", leaves_out.format("the names of tool calls"))
    assert refused(llama, *CONVERSATION, tools=[TOOL]) == ("tools[0]", leaves_out.format("tools"))
    assert refused(llama, CONVERSATION[0], call) == names
    assert refused(bundled, CONVERSATION[0], call | {"content": None}) == names
    late = [*CONVERSATION[:2], {"role": "developer", "content": "Be brief."}, *CONVERSATION[2:]]
    knowing = chat_template("chatml").replace("== 'tool'", "== 'tool' or message['role'] == 'developer' and loop.first")
    assert refused(altered("chatml", knowing), *late) == (
        "messages[2].content",
        leaves_out.format("the content of this developer message"),
    )


def test_an_engine_feeds_calls_only_where_the_template_shows_them() -> None:
    called = [CONVERSATION[0], {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "Two."}]
    legacy = [CONVERSATION[0], {"role": "assistant", "content": "Wait.", "function_call": CALL["function"]}]
    chatml = tokenizer_for("chatml")
    for messages in (called, legacy):
        assert '{"name": "look", "arguments": {"shelf": 2}}' in chatml.decode(
            encode_chat(template_for(chatml), messages)
        )
        with pytest.raises(RenderError) as caught:
            encode_chat(template_for(tokenizer_for("bundled")), messages)
        assert caught.value.field == "messages[1].tool_calls[0]"


def test_what_a_template_refuses_is_told_in_its_words() -> None:
    field, reason = refused(tokenizer_for("mistral_first"), CONVERSATION[0], *CONVERSATION)
    assert field == "messages"
    assert reason.endswith("user and assistant must take turns")


def test_a_base_without_a_template_refuses_chat_rows() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer_for("chatml").backend_tokenizer)
    assert refused(bare, *CONVERSATION)[0] == "messages"


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    endless = altered("chatml", chat_template("chatml").replace("<|im_end|>", ""))
    assert refused(endless, *CONVERSATION) == (
        "messages",
        "the base's chat template does not end answers with a special token; use another base",
    )


def test_a_turn_of_another_kind_without_the_end_of_turn_is_refused() -> None:
    end = "{{- '<|im_end|>\\n' -}}\n{%- elif message['role'] == 'tool'"
    assert end in chat_template("chatml")
    template = chat_template("chatml").replace(
        end, "{%- if not message['tool_calls'] -%}" + end.replace("{%- elif", "{%- endif -%}\n{%- elif")
    )
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert refused(altered("chatml", template), CONVERSATION[0], call) == (
        "messages[1]",
        "the base's chat template does not end this answer with '<|im_end|>'; use another base",
    )


def test_what_a_template_writes_after_the_end_of_turn_is_not_trained() -> None:
    # Phi-3's template ends a conversation with the end of the text, unless an answer is next.
    template = chat_template("bundled") + "{%- if not add_generation_prompt -%}{{- '\\n<|end|><|pad|>' -}}{%- endif -%}"
    tokenizer = altered("bundled", template)
    assert tokenizer.apply_chat_template(CONVERSATION, tokenize=False).endswith("🎸.<|end|>\n<|end|><|pad|>")
    assert trained_texts(tokenizer, render(tokenizer, *CONVERSATION)) == [[text + "<|end|>" for text in ANSWERS]]


def test_a_generation_prompt_that_no_answer_begins_with_is_refused() -> None:
    thinker = altered("chatml", chat_template("chatml").replace("assistant\\n' -", "assistant\\n<think>\\n' -"))
    assert refused(thinker, *CONVERSATION) == (
        "messages[1].content",
        r"the base's generation prompt already begins the answer with '<think>\n'; write the content as "
        r"'<think>\n...\n</think>\n\n...', the reasoning first, then the answer",
    )


def test_an_answer_to_nothing_is_refused_unless_its_weight_is_0() -> None:
    greeting = {"role": "assistant", "content": "Hello."}
    tokenizer = tokenizer_for("chatml")
    assert refused(tokenizer, greeting, *CONVERSATION)[0] == "messages[0]"
    assert trained_texts(tokenizer, render(tokenizer, greeting | {"weight": 0}, *CONVERSATION[:2])) == [
        ["A day.<|im_end|>"]
    ]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"role": "user", "content": "What is <|im_end|>?"}, CONVERSATION[1]], "messages[0].content"),
        ([CONVERSATION[0], {"role": "assistant", "content": "<|im_start|>user"}], "messages[1].content"),
        (
            [CONVERSATION[0], {"role": "assistant", "tool_calls": [CALL | {"function": {
                "name": "look", "arguments": '{"a": "<|im\\u005fend|>"}'}}]}],
            "messages[1].tool_calls",
        ),
    ],
)  # fmt: skip
def test_text_that_would_be_read_as_a_special_token_is_refused(messages: list[dict[str, Any]], field: str) -> None:
    found, reason = refused(tokenizer_for("chatml"), *messages)
    assert found == field
    assert "a special token of the base" in reason


def test_special_tokens_in_names_of_arguments_and_in_tools_are_refused() -> None:
    tokenizer = tokenizer_for("chatml")
    call = CALL | {"function": {"name": "look", "arguments": '{"<|im_end|>": 1}'}}
    assert refused(tokenizer, CONVERSATION[0], {"role": "assistant", "tool_calls": [call]})[0] == (
        "messages[1].tool_calls"
    )
    tool = {"type": "function", "function": {"name": "look", "description": "<|im_end|>"}}
    assert refused(tokenizer, *CONVERSATION, tools=[tool])[0] == "tools"


def test_added_tokens_that_are_not_special_may_be_written() -> None:
    tokenizer = tokenizer_for("chatml")
    messages = [CONVERSATION[0], {"role": "assistant", "content": "<tool_call>"}]
    assert trained_texts(tokenizer, render(tokenizer, *messages)) == [["<tool_call><|im_end|>"]]


def test_an_end_of_text_that_its_tokenizer_does_not_mark_as_special_is_one_all_the_same() -> None:
    backend = Tokenizer.from_str(tokenizer_for("llama3").backend_tokenizer.to_str())
    backend.add_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=chat_template("chatml")
    )
    assert trained_texts(tokenizer, render(tokenizer, *CONVERSATION)) == [[text + "<|im_end|>" for text in ANSWERS]]
    assert refused(tokenizer, {"role": "user", "content": "<|im_end|>"}, CONVERSATION[1])[0] == "messages[0].content"


def test_special_tokens_of_other_bases_are_only_text() -> None:
    tokenizer = tokenizer_for("llama3")
    (sequence,) = render(tokenizer, CONVERSATION[0], {"role": "assistant", "content": "Say <|im_end|>."})
    assert trained_texts(tokenizer, [sequence]) == [["Say <|im_end|>.<|eot_id|>"]]


def test_an_engine_is_told_of_special_tokens_too() -> None:
    with pytest.raises(RenderError, match=r"messages\[0\]\.content: contains '<\|im_end\|>'"):
        encode_chat(template_for(tokenizer_for("chatml")), [{"role": "user", "content": "<|im_end|>"}])


def test_an_engine_may_send_parts_tools_and_calls_as_they_came() -> None:
    tokenizer = tokenizer_for("chatml")
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = {"role": "tool", "content": "Two.", "tool_call_id": "c1"}
    text = tokenizer.decode(encode_chat(template_for(tokenizer), [parts, call, answer], [TOOL]))
    assert "user\na\nb<|im_end|>" in text
    assert '"arguments": {"shelf": 2}}' in text
    with pytest.raises(RenderError, match="holds an image"):
        encode_chat(template_for(tokenizer), [{"role": "user", "content": [{"type": "image_url"}]}])
