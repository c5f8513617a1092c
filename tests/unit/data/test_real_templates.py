"""The templates of real families: what the page says of them is what happens, and most of it trains."""

import re
from itertools import product

import pytest
from jinja2 import TemplateError

from docs.make_templates import PAGE, render
from tests.given.templates.families import ROWS, family_text
from tests.given.templates.rendering import chat_row, spans, trained_texts
from tests.servers.chat_templates import real_templates
from workers.data.messages import RenderError, template_messages
from workers.data.render import Renderer, encode_chat
from workers.data.template import ChatTemplate, PlainRendering

pytestmark = pytest.mark.slow


def test_the_page_of_templates_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(real_templates()), "run: python -m docs.make_templates"


@pytest.mark.parametrize("kind", ROWS)
def test_conversations_of_texts_are_rendered_by_the_short_way_as_transformers_renders_them(kind: str) -> None:
    """Every family's template, each beginning of the conversation, with and without the beginning of an answer."""
    messages = [message for message in template_messages(ROWS[kind]["messages"]) if PlainRendering.takes([message])]
    num_equal, once = 0, set()
    for name, source in real_templates().items():
        text = family_text(name, source)
        short, spelled = PlainRendering(text.tokenizer, source), ChatTemplate(text).dialect.spell(messages)
        try:
            whole = short.beginnings(spelled) if PlainRendering.takes(spelled) else None
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
            whole = None
        for length, answer_next in product(range(1, len(spelled) + 1), (False, True)):
            begun = spelled[:length]
            if not PlainRendering.takes(begun):  # a dialect of parts
                continue
            try:
                expected = text.tokenizer.apply_chat_template(
                    begun, chat_template=source, tokenize=False, add_generation_prompt=answer_next
                )
            except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
                with pytest.raises(type(error), match=re.escape(str(error))):
                    short.render(begun, answer_next=answer_next)
                continue
            assert short.render(begun, answer_next=answer_next) == expected, name
            num_equal += 1
            if whole is not None and (known := whole.render(length, answer_next=answer_next)) is not None:
                assert known == expected, name
                once.add(name)
    assert num_equal >= 30
    assert len(once) >= 8, "conversations of these families are rendered once"


@pytest.mark.parametrize("kind", ROWS)
def test_whatever_trains_goes_on_from_its_engines_prompt_and_ends_as_its_engine_stops(kind: str) -> None:
    row = ROWS[kind]
    parsed = chat_row(row)
    num_trained = 0
    for name, template in real_templates().items():
        text = family_text(name, template)
        try:
            sequences = Renderer(text).render(parsed)
        except RenderError:
            continue
        num_trained += 1
        last = sequences[-1]
        start, end = spans(last)[-1]
        shown = ChatTemplate(text)
        assert last.ids[:start] == encode_chat(shown, row["messages"][:-1], row.get("tools")), name
        assert end == len(last.ids)
        answer = trained_texts(text.tokenizer, [last])[0][-1]
        assert any(answer.endswith(token) for token in shown.ends), (name, answer)
        for words in ("reasoning_content", "content"):
            for piece in row["messages"][-1].get(words, "").replace("<think>", "\n").splitlines():
                assert piece in answer, (name, answer)
    assert num_trained >= 15
