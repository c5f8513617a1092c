"""A chat template that prints today's date is given the day of a model's training when the model is asked."""

from datetime import date
from pathlib import Path

import httpx
from transformers import AutoTokenizer

from tests.given.engines import CPU, calling, local_store, make_engine, publish, save_adapter
from tests.given.tiny_models import make_tiny_base
from workers.data.render import encode_chat
from workers.data.template import ChatTemplate
from workers.model.load import load_base

TEMPLATE = (
    "{%- macro head() -%}{{- strftime_now('%d %b %Y, 100%%') -}}{%- endmacro -%}{{- head() -}}"
    "{{- 'x' * 50 if strftime_now('%Y-%m-%d') == '2001-02-03' -}}"
    "{%- for message in messages -%}{{- message['content'] ~ '<|end|>' -}}{%- endfor -%}"
)
MESSAGES = [{"role": "user", "content": "Hello"}]
DAY = date(2001, 2, 3)


async def test_a_model_is_asked_with_the_date_of_its_training(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base.source)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base.source)
    loaded = load_base(base, CPU)
    store = local_store(tmp_path / "objects")
    folder = save_adapter(loaded, tmp_path / "adapter", seed=0)
    dated = await publish(store, base, loaded, folder, "dateddat", template_date=DAY)
    undated = await publish(store, base, loaded, folder, "undatedu")
    trained_with = encode_chat(ChatTemplate(loaded.text, DAY), MESSAGES)
    assert loaded.tokenizer.decode(trained_with).startswith("03 Feb 2001, 100%xxxx")
    async with calling(make_engine(base, loaded, tmp_path)) as client:
        lengths = [await _prompt_tokens(client, name) for name in (dated, undated, "tiny")]
    assert lengths == [len(trained_with), len(trained_with) - 50, len(trained_with) - 50]


async def _prompt_tokens(client: httpx.AsyncClient, model: str) -> int:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 1}
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    num_tokens: int = answer.json()["usage"]["prompt_tokens"]
    return num_tokens
