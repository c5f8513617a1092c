"""The templates of real families: what the page says of them is what happens, and most of it trains."""

import pytest

from docs.make_templates import PAGE, render
from tests.given.templates.families import ROWS, family_text
from tests.given.templates.rendering import chat_row, spans, trained_texts
from tests.servers.chat_templates import real_templates
from workers.data.messages import RenderError
from workers.data.render import Renderer, encode_chat
from workers.data.template import ChatTemplate


def test_the_page_of_templates_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(real_templates()), "run: python -m docs.make_templates"


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
