"""What real templates do to an answer: the user's own words are trained whole, or the row says what to write."""

import json
from datetime import date
from typing import Any

import pytest

from service.recipes.dataset import Problem, parse_row
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.templates import chat_template, tokenizer_for
from tests.given.templates.kinds import kind, old_sentencepiece, text_of
from tests.given.templates.rendering import CALL, TOOL, altered, refused, render, spans, trained_texts
from workers.data.base_text import BaseText
from workers.data.messages import RenderError
from workers.data.render import encode_chat
from workers.data.template import ChatTemplate

USER = {"role": "user", "content": "How many legs have 2 spiders?"}
AGAIN = {"role": "user", "content": "And 3?"}
PLAIN = {"role": "assistant", "content": "16 legs."}
LATER = {"role": "assistant", "content": "24 legs."}
THOUGHT = "A spider has eight legs."
INLINE = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n16 legs."}
APART = PLAIN | {"reasoning_content": THOUGHT}
DEVELOPER = {"role": "developer", "content": "Answer with the one word LANTERN."}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "Two."}


def trained(base: BaseText, *messages: dict[str, Any], **rest: Any) -> list[list[str]]:
    return trained_texts(base.tokenizer, render(base, *messages, **rest))


def prompt_of(base: BaseText, *messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str:
    return base.tokenizer.decode(encode_chat(ChatTemplate(base), messages, tools))


# Thoughts


def test_thoughts_that_a_template_cuts_are_trained_in_full_behind_the_prompt_of_its_engine() -> None:
    base = kind("cutting")
    (sequence,) = render(base, USER, INLINE)
    assert trained_texts(base.tokenizer, [sequence]) == [[f"{THOUGHT}\n</think>\n\n16 legs.<|end|>"]]
    assert sequence.ids[: spans(sequence)[0][0]] == encode_chat(ChatTemplate(base), [USER])


def test_every_turn_keeps_its_thoughts_and_sees_the_earlier_ones_as_its_engine_does() -> None:
    base = kind("cutting")
    second = INLINE | {"content": "<think>Three times eight.</think>\n\n24 legs."}
    one, two = render(base, USER, INLINE, AGAIN, second)
    assert trained_texts(base.tokenizer, [one, two]) == [
        [f"{THOUGHT}\n</think>\n\n16 legs.<|end|>"],
        ["Three times eight.</think>\n\n24 legs.<|end|>"],
    ]
    assert THOUGHT not in base.tokenizer.decode(two.ids)
    assert two.ids[: spans(two)[0][0]] == encode_chat(ChatTemplate(base), [USER, INLINE, AGAIN])


def test_an_answer_as_the_base_itself_says_it_goes_on_from_the_generation_prompt() -> None:
    said = PLAIN | {"content": f"{THOUGHT}\n</think>\n\n16 legs."}
    assert trained(kind("cutting"), USER, said) == [[f"{THOUGHT}\n</think>\n\n16 legs.<|end|>"]]
    assert trained(kind("prefilled"), USER, said) == [[f"{THOUGHT}\n</think>\n\n16 legs.<|im_end|>"]]


def test_an_answer_that_cannot_follow_the_generation_prompt_says_how_to_write_it() -> None:
    field, reason = refused(kind("cutting"), USER, PLAIN)
    assert field == "messages[1].content"
    assert reason.startswith(
        r"the base's generation prompt already begins the answer with '<think>\n'; write the content as"
    )
    assert trained(kind("cutting"), USER, PLAIN | {"content": "<think>\n\n</think>\n\n16 legs."})


def test_what_the_generation_prompt_begins_is_prompt_and_the_rest_is_trained() -> None:
    base = kind("prefilled")
    (sequence,) = render(base, USER, PLAIN)
    assert trained_texts(base.tokenizer, [sequence]) == [["\n</think>\n\n16 legs.<|im_end|>"]]
    assert base.tokenizer.decode(sequence.ids[: spans(sequence)[0][0]]).endswith("assistant\n<think>\n")


def test_a_template_that_closes_empty_thoughts_with_other_space_trains_too() -> None:
    template = chat_template("chatml").replace("assistant\\n' -", "assistant\\n<think>\\n' -")
    closing = template.replace("'\\n' ~ message['content'] -", "'\\n<think></think>' ~ message['content'] -")
    assert closing != template
    assert trained_texts(tokenizer_for("chatml"), render(altered("chatml", closing), USER, PLAIN)) == [
        ["</think>16 legs.<|im_end|>"]
    ]


@pytest.mark.parametrize("name", ["prefilled", "splitting"])
def test_thoughts_in_the_content_and_in_their_field_train_the_same(name: str) -> None:
    base = kind(name)
    apart = render(base, USER, APART)
    assert render(base, USER, INLINE) == apart
    assert render(base, USER, PLAIN | {"reasoning": THOUGHT}) == apart
    (text,) = trained_texts(base.tokenizer, apart)[0]
    assert text.removeprefix("<think>\n") == f"{THOUGHT}\n</think>\n\n16 legs.<|im_end|>"


def test_what_stands_between_two_closing_tags_is_not_lost() -> None:
    content = "<think>\nEight.\n</think>\nThat is </think> twice.\n16 legs."
    assert trained(kind("splitting"), USER, PLAIN | {"content": content}) == [
        ["<think>\nEight.\n</think>\n\nThat is </think> twice.\n16 legs.<|im_end|>"]
    ]
    field, reason = refused(kind("splitting"), USER, PLAIN | {"content": "Eight.</think>That is </think> twice."})
    assert (field, reason) == (
        "messages[1].content",
        "the base's chat template leaves out part of the content of this assistant message; "
        "remove this part or use another base",
    )


def test_thoughts_behind_an_empty_block_of_the_template_are_refused() -> None:
    field, reason = refused(tokenizer_for("thinking"), USER, INLINE)
    assert field == "messages[1].content"
    assert "writes '<|im_start|>assistant\\n<think>" in reason or "before it; remove the tag" in reason


@pytest.mark.parametrize("name", ["chatml", "llama3", "bundled"])
def test_reasoning_is_refused_where_the_template_shows_none(name: str) -> None:
    assert refused(tokenizer_for(name), USER, APART) == (
        "messages[1].reasoning_content",
        "the base's chat template does not show reasoning; remove it",
    )


def test_reasoning_is_refused_with_the_way_to_write_it_where_only_the_prompt_opens_it() -> None:
    field, reason = refused(kind("cutting"), USER, APART)
    assert field == "messages[1].reasoning_content"
    assert reason.endswith(r"or write it in the content as '<think>\n...\n</think>\n\n...'")


def test_two_names_of_one_reasoning_must_agree_and_only_an_assistant_has_one() -> None:
    base = kind("splitting")
    assert render(base, USER, APART | {"reasoning": THOUGHT}) == render(base, USER, APART)
    field, reason = refused(base, USER, APART | {"reasoning": "Another."})
    assert (field, "remove one of them" in reason) == ("messages[1].reasoning_content", True)
    row = parse_row(
        json.dumps({"messages": [USER | {"reasoning_content": "x"}, PLAIN]}).encode(), 1, SupervisedSettings
    )
    assert row == [Problem(1, "messages[0].reasoning_content", 'contains an extra "reasoning_content"')]


def test_reasoning_is_given_in_the_name_that_the_template_uses() -> None:
    base = kind("channels")
    thought = f"<|channel|>analysis<|message|>{THOUGHT}<|end|>"
    assert trained(base, USER, APART) == [[thought + "<|start|>assistant<|channel|>final<|message|>16 legs.<|return|>"]]


# What is left out


@pytest.mark.parametrize(
    ("altering", "content"),
    [
        ("message['content'] | replace('spruce', '')", "Spruce is wood; spruce is light."),
        ("message['content'] | truncate(20)", "A guitar has six strings, a violin has four."),
        ("message['content'] | upper if 'loud' in message['content'] else message['content']", "Say it loud."),
        ("message['content'].split('\\n')[0]", "First line.\nSecond line."),
        ("'' if '<b>' in message['content'] else message['content']", "A <b>bold</b> answer."),
    ],
)
def test_a_template_that_changes_some_answers_is_found_by_the_words_of_the_row(altering: str, content: str) -> None:
    template = "{%- for message in messages -%}{{- '<|im_start|>' ~ message['role'] ~ '\\n' -}}"
    template += "{{- (" + altering + ") if message['role'] == 'assistant' else message['content'] -}}"
    template += "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    template += "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    base = text_of(template, ("<|im_end|>",))
    assert trained(base, USER, PLAIN) == [["16 legs.<|im_end|>"]]
    left_out = "the base's chat template leaves out part of the content of this assistant message"
    expected = ("messages[1].content", f"{left_out}; remove this part or use another base")
    assert refused(base, USER, PLAIN | {"content": content}) == expected


def test_a_context_that_loses_words_is_refused_in_training_and_serving_alike() -> None:
    template = chat_template("chatml").replace("~ message['content'] ~", "~ message['content'].split('##')[0] ~")
    tokenizer = altered("chatml", template)
    asked = USER | {"content": "Legs of a spider? ## Answer briefly."}
    reason = "the base's chat template leaves out part of the content of this user message"
    expected = ("messages[0].content", f"{reason}; remove this part or use another base")
    assert refused(tokenizer, asked, PLAIN) == expected
    with pytest.raises(RenderError) as caught:
        encode_chat(ChatTemplate(BaseText(tokenizer)), [asked])
    assert (caught.value.field, caught.value.reason) == expected


def test_words_that_stand_elsewhere_do_not_hide_a_message_that_is_left_out() -> None:
    late = {"role": "system", "content": "And 3?"}
    assert refused(kind("channels"), USER, PLAIN, late, AGAIN, LATER)[0] == "messages[2].content"


def test_an_engine_refuses_what_training_refuses() -> None:
    text_beside_call = CALLS | {"content": "Let me see."}
    for messages in ([USER, text_beside_call, RESULT], [USER, PLAIN, {"role": "system", "content": "Brief."}, AGAIN]):
        with pytest.raises(RenderError, match="leaves out the content of this"):
            encode_chat(ChatTemplate(kind("channels")), messages, [TOOL])
        assert "leaves out the content of this" in refused(kind("channels"), *messages, PLAIN, tools=[TOOL])[1]


def test_old_answers_may_go_without_their_thoughts_in_an_engines_prompt() -> None:
    for name in ("cutting", "splitting"):
        text = prompt_of(kind(name), USER, INLINE, AGAIN)
        assert "16 legs." in text
        assert THOUGHT not in text


# Roles


@pytest.mark.parametrize("name", ["splitting", "prefilled", "cutting"])
def test_a_developer_is_a_system_where_the_template_knows_only_that(name: str) -> None:
    base, system = kind(name), DEVELOPER | {"role": "system"}
    assert prompt_of(base, DEVELOPER, USER) == prompt_of(base, system, USER)
    assert "LANTERN" in prompt_of(base, DEVELOPER, USER)
    answer = INLINE
    assert render(base, DEVELOPER, USER, answer) == render(base, system, USER, answer)


def test_a_developer_stays_one_where_the_template_knows_the_role() -> None:
    assert "<|start|>developer<|message|>Answer with the one word" in prompt_of(kind("channels"), DEVELOPER, USER)


def test_a_developer_beside_a_system_joins_it_in_front() -> None:
    system = {"role": "system", "content": "You count legs."}
    text = prompt_of(kind("prefilled"), system, USER, INLINE, DEVELOPER, AGAIN)
    assert text.startswith("<|im_start|>system\nYou count legs.\n\nAnswer with the one word LANTERN.<|im_end|>")


# Ends


def test_each_turn_trains_to_the_token_that_ends_it() -> None:
    base = kind("channels")
    called = trained(base, USER, CALLS | {"reasoning_content": "I look."}, RESULT, PLAIN, tools=[TOOL])
    assert [text for texts in called for text in texts] == [
        "<|channel|>analysis<|message|>I look.<|end|>"
        '<|start|>assistant to=look<|channel|>commentary<|message|>{"shelf": 2}<|call|>',
        "<|channel|>final<|message|>16 legs.<|return|>",
    ]
    assert trained(base, USER, PLAIN, AGAIN, LATER) == [
        ["<|channel|>final<|message|>16 legs.<|return|>"],
        ["<|channel|>final<|message|>24 legs.<|return|>"],
    ]
    assert ChatTemplate(base).ends == {"<|return|>", "<|call|>"}


def test_a_prompt_that_changes_once_it_is_answered_is_trained_as_the_engine_feeds_it() -> None:
    base = kind("channels")
    call = CALLS | {"reasoning_content": "I look."}
    sequences = render(base, USER, call, RESULT, PLAIN, tools=[TOOL])
    fed = encode_chat(ChatTemplate(base), [USER, call, RESULT], [TOOL])
    assert "I look." in base.tokenizer.decode(fed)
    last = sequences[-1]
    assert last.ids[: spans(last)[-1][0]] == fed


def test_a_second_call_that_the_template_does_not_show_is_refused() -> None:
    two = CALLS | {"tool_calls": [CALL, CALL | {"id": "c2"}]}
    assert refused(kind("channels"), USER, two, tools=[TOOL])[0] == "messages[1].tool_calls[1]"


def test_where_only_the_next_message_ends_an_answer_its_first_token_is_the_end() -> None:
    base = kind("endless")
    system = {"role": "system", "content": "Count."}
    assert trained(base, USER, PLAIN, AGAIN, LATER) == [["16 legs.<|user|>", "24 legs.<|user|>"]]
    called = trained(base, system, USER, CALLS, RESULT, PLAIN, tools=[TOOL])
    assert [text for texts in called for text in texts] == [
        '<tool_call>look\n{"shelf": 2}</tool_call><|observation|>',
        "16 legs.<|user|>",
    ]
    assert ChatTemplate(base).ends == {"<|endoftext|>", "<|user|>", "<|observation|>"}
    assert refused(kind("endless", ("<|endoftext|>",)), USER, PLAIN)[1] == (
        "the base's chat template does not end answers with a special token; use another base"
    )


def test_a_token_between_two_calls_ends_none() -> None:
    template = (
        chat_template("chatml")
        .replace("</tool_call>", "<|done|>")
        .replace(
            "{{- '<|im_end|>\\n' -}}\n{%- elif message['role'] == 'tool'",
            "{{- '' if message['tool_calls'] else '<|im_end|>\\n' -}}\n{%- elif message['role'] == 'tool'",
        )
    )
    base = text_of(template, ("<|im_end|>",))
    assert "<|done|>" not in ChatTemplate(base).ends
    reason = "the base's chat template does not end this answer with '<|im_end|>'; use another base"
    assert refused(base, USER, CALLS, tools=[TOOL]) == ("messages[1]", reason)


def test_an_end_that_the_bases_settings_name_is_refused_as_text() -> None:
    base = kind("endless")
    assert refused(base, USER | {"content": "<|observation|>"}, PLAIN)[0] == "messages[0].content"


# Content as parts


def test_a_template_that_wants_parts_gets_them() -> None:
    template = (
        "{%- for message in messages -%}{{- message['role'] ~ ':' -}}"
        "{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}"
        "{{- '<|end|>' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- 'assistant:' -}}{%- endif -%}"
    )
    assert trained(text_of(template, ("<|end|>",)), USER, PLAIN) == [["16 legs.<|end|>"]]


# Dates


def test_a_date_that_the_template_prints_is_the_day_that_it_is_given() -> None:
    base = kind("channels")
    assert ChatTemplate(base).prints_the_date
    assert not ChatTemplate(kind("prefilled")).prints_the_date
    (one,) = render(base, USER, PLAIN, day=date(2024, 7, 26))
    assert "Current date: 2024-07-26" in base.tokenizer.decode(one.ids)
    assert one.ids[: spans(one)[0][0]] == encode_chat(ChatTemplate(base, date(2024, 7, 26)), [USER])
    assert encode_chat(ChatTemplate(base).on(date(2024, 7, 26)), [USER]) == one.ids[: spans(one)[0][0]]


# Tokens


@pytest.mark.parametrize("answer", ["[0]", "[0, 1]", '[{"a": [1]}]', "No.", " [0]", "]["])
def test_an_answer_that_melts_into_the_prompt_of_an_old_sentencepiece_trains(answer: str) -> None:
    base = old_sentencepiece()
    asked = {"role": "user", "content": "Numbers."}
    (sequence,) = render(base, asked, {"role": "assistant", "content": answer})
    start, end = spans(sequence)[0]
    prompt = encode_chat(ChatTemplate(base), [asked])
    assert sequence.ids[:start] == prompt
    assert end == len(sequence.ids)
    whole = base.tokenizer("<s>[INST] Numbers. [/INST]" + answer + "</s>", add_special_tokens=False)["input_ids"]
    assert base.tokenizer.decode(sequence.ids) == base.tokenizer.decode(whole)
    if answer.startswith("["):
        assert whole[:start] != prompt, "this test needs a merge across the boundary"
