"""The beginnings of a conversation as parts of one rendering: those that are known are the text of each alone, and a
template that looks ahead is noticed.
"""

import pytest

from tests.given.templates import SHAPES, tokenizer_for
from tests.given.templates.kinds import text_of
from tests.given.templates.rendering import template_for
from workers.data.template import ChatTemplate
from workers.data.whole_rendering import VAIN_LIMIT, WholeRendering

BODY = "{{ '<|' ~ message.role ~ '|>' ~ message.content ~ '<|end|>' }}"
LOOP = "{% for message in messages %}" + BODY + "{% endfor %}"
REST = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How long does glue dry?"},
    {"role": "assistant", "content": "A day."},
    {"role": "user", "content": "And in winter?"},
    {"role": "assistant", "content": "Two."},
]
CAUSAL = {
    "a loop": LOOP + REST,
    "its count": LOOP.replace("{{", "{% if loop.first %}<|end|>{% endif %}{{ loop.index }}{{", 1) + REST,
    "the message before": LOOP.replace("{{", "{{ loop.previtem.role if loop.index0 else '' }}{{", 1) + REST,
    "an earlier message": LOOP.replace("{{", "{{ messages[loop.index0 - 1].role if loop.index0 else '' }}{{", 1) + REST,
    "the first apart": "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}"
    "{% endif %}" + LOOP + REST,
    "what was said": "{% set said = namespace(roles='') %}"
    + LOOP.replace("{{", "{% set said.roles = said.roles ~ message.role %}{{ said.roles }}{{", 1)
    + REST,
    "some only": LOOP.replace("{{", "{% if message.role == 'system' %}{% continue %}{% endif %}{{", 1) + REST,
    "what is no text": LOOP.replace("{{", "{% if message.role == 'tool' %}{{ loop.last }}{% endif %}{{", 1) + REST,
    "another field": LOOP + "{% if add_generation_prompt %}<|assistant|>{{ 'x' if thinking is defined }}{% endif %}",
}
LOOKING_AHEAD = {
    "the last": LOOP.replace("{{", "{% if loop.last %}!{% endif %}{{", 1) + REST,
    "the next": LOOP.replace("{{", "{{ loop.nextitem.role if loop.nextitem is defined else '' }}{{", 1) + REST,
    "the count to the end": LOOP.replace("{{", "{{ loop.revindex }}{{", 1) + REST,
    "the loop's length": LOOP.replace("{{", "{{ loop.length }}{{", 1) + REST,
    "the loop's length by its name": LOOP.replace("{{", "{{ loop['length'] }}{{", 1) + REST,
    "the loop in a macro": "{% macro of(loop) %}{{ loop.length }}{% endmacro %}"
    + LOOP.replace("{{", "{{ of(loop) }}{{", 1)
    + REST,
    "the last by its place": "{{ messages[-1].content }}" + LOOP + REST,
    "the last by a filter": "{{ (messages | last).content }}" + LOOP + REST,
    "one of a place": "{{ messages[1].content if messages[1] is defined else '' }}" + LOOP + REST,
    "the next by its place": LOOP.replace(
        "{{", "{{ messages[loop.index0 + 1].role if loop.index0 + 1 < messages | length else '' }}{{", 1
    )
    + REST,
    "the number": "{{ messages | length }}" + LOOP + REST,
    "whether there are more": "{% if messages[1:] %}!{% endif %}" + LOOP + REST,
    "backwards": "{% for message in messages[::-1] %}{{ message.role }}{% endfor %}" + LOOP + REST,
    "all but the last": "{% for message in messages[:-1] %}" + BODY + "{% endfor %}" + REST,
    "twice": LOOP + LOOP + REST,
    "all as text": "{{ messages }}" + LOOP + REST,
    "all as JSON": "{{ messages | tojson }}" + LOOP + REST,
    "equal to others": "{{ messages == messages[1:] }}" + LOOP + REST,
    "a sequence": "{{ messages is sequence }}{{ 'two' if messages[:2] == messages }}" + LOOP + REST,
    "some roles": "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}" + LOOP + REST,
    "some of the loop": "{% for message in messages if message.role != 'system' %}" + BODY + "{% endfor %}" + REST,
    "the field in the loop": LOOP.replace("{{", "{{ 'a' if add_generation_prompt else 'b' }}{{", 1) + REST,
    "what the loop set": "{% set said = namespace(role='') %}"
    + LOOP.replace("{{", "{% set said.role = message.role %}{{", 1)
    + "{{ said.role }}"
    + REST,
    "messages in the rest": LOOP + "{{ messages[0].role }}{{ messages[-1].role }}" + REST,
    "a macro with all": "{% macro all() %}{{ messages | length }}{% endmacro %}" + LOOP + "{{ all() }}" + REST,
    "an early end": LOOP.replace("{{", "{% if message.content == 'Two.' %}{% break %}{% endif %}{{", 1) + REST,
    "the end of the first": LOOP.replace("{{", "{{ messages[0:loop.index0 + 2] | length }}{{", 1) + REST,
}


def known_of(template: ChatTemplate) -> int:
    """How many beginnings of the conversation are known of one rendering; each is compared."""
    beginnings = template.beginnings(TALK, None)
    num_known = 0
    for length in range(1, len(TALK) + 1) if beginnings else ():
        for answer_next in (False, True):
            assert beginnings is not None
            known = beginnings.render(length, answer_next=answer_next)
            if known is not None:
                assert known == template.render(TALK[:length], None, answer_next=answer_next), (length, answer_next)
                num_known += 1
    return num_known


@pytest.mark.parametrize("kind", CAUSAL)
def test_beginnings_are_parts_of_one_rendering(kind: str) -> None:
    assert known_of(ChatTemplate(text_of(CAUSAL[kind], ("<|end|>",)))) == 2 * len(TALK)


@pytest.mark.parametrize("kind", LOOKING_AHEAD)
def test_a_template_that_looks_ahead_is_noticed(kind: str) -> None:
    template = ChatTemplate(text_of(LOOKING_AHEAD[kind], ("<|end|>",)))
    assert template.render(TALK, None, answer_next=True)
    assert known_of(template) == 0


def test_a_template_that_always_looks_ahead_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(text_of(LOOKING_AHEAD["the last"], ("<|end|>",)))
    template.beginnings(TALK, None)
    renderings = []
    rendered = WholeRendering._rendered
    monkeypatch.setattr(
        WholeRendering, "_rendered", lambda *given, **named: renderings.append(rendered(*given, **named))
    )
    for _ in range(3 * VAIN_LIMIT):
        assert template.beginnings(TALK, None) is None
    assert len(renderings) < VAIN_LIMIT


def test_of_what_bases_have_some_are_rendered_once_and_all_the_same() -> None:
    known = {name: known_of(template_for(tokenizer_for(name))) for name in SHAPES}
    assert known["bundled"] == known["chatml"] == known["llama3"] == 2 * len(TALK)


def test_a_developer_for_a_template_without_one_is_rendered_by_itself() -> None:
    """Its text joins that of the system, which is then another first message."""
    template = ChatTemplate(text_of(LOOP + REST, ("<|end|>",)))
    assert template.beginnings([*TALK[:3], {"role": "developer", "content": "Be kind."}, *TALK[3:]], None) is None
