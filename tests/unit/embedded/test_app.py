"""The engine over HTTP: what it honours, what it refuses, and what it counts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from service.recipes.base import Base
from tests.given.engines import calling, greedy, load_tiny, logits_of, make_engine
from workers.data.render import encode_chat
from workers.data.template import ChatTemplate
from workers.model.load import LoadedBase

PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": "Hello"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Base, LoadedBase]:
    return load_tiny(tmp_path / "base")


@pytest.fixture
async def client(tiny: tuple[Base, LoadedBase], tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(make_engine(*tiny, tmp_path)) as client:
        yield client


async def complete(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, "temperature": 0} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def chat(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    json = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 8} | body
    response = await client.post("/v1/chat/completions", json=json)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def refusal(client: httpx.AsyncClient, path: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    whole = {"model": "tiny"} | ({"prompt": PROMPT} if path == "/v1/completions" else {"messages": MESSAGES}) | body
    response = await client.post(path, json={name: value for name, value in whole.items() if value != "absent"})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def text_of(loaded: LoadedBase, ids: list[int]) -> str:
    """What those tokens say, up to the end of the answer."""
    end = ids.index(2) if 2 in ids else len(ids)
    text: str = loaded.tokenizer.decode(ids[:end], skip_special_tokens=True)
    return text


async def test_completion_is_the_models_own(client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]) -> None:
    _, loaded = tiny
    prompt = loaded.tokenizer.encode(PROMPT)
    ids = greedy(loaded, None, prompt, 16)
    answer = await complete(client)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "tiny"
    expected = {"index": 0, "text": text_of(loaded, ids), "logprobs": None, "finish_reason": "length"}
    assert answer["choices"] == [expected]
    assert answer["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": 16, "total_tokens": len(prompt) + 16}


async def test_chat_feeds_what_training_renders(client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]) -> None:
    _, loaded = tiny
    prompt = encode_chat(ChatTemplate(loaded.text), MESSAGES)
    answer = await chat(client)
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    content = text_of(loaded, greedy(loaded, None, prompt, 8))
    message = {"role": "assistant", "content": content, "refusal": None}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["prompt_tokens"] == len(prompt)


async def test_end_of_turn_ends_the_answer_and_is_counted(
    client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]
) -> None:
    _, loaded = tiny
    prompt = loaded.tokenizer.encode(PROMPT)
    for seed in range(40):
        answer = await complete(client, temperature=1.5, seed=seed, max_tokens=100, logprobs=0)
        [choice] = answer["choices"]
        if choice["finish_reason"] == "stop":
            break
    assert choice["finish_reason"] == "stop"
    assert "<|end|>" not in choice["text"]
    assert len(choice["logprobs"]["tokens"]) == answer["usage"]["completion_tokens"] - 1
    assert answer["usage"]["prompt_tokens"] == len(prompt)


async def test_chat_without_a_limit_goes_on_to_the_end_of_the_context(client: httpx.AsyncClient) -> None:
    answer = await chat(client, max_tokens=None)
    reason, total = answer["choices"][0]["finish_reason"], answer["usage"]["total_tokens"]
    assert (reason == "length" and total == 256) or (reason == "stop" and total <= 256)


async def test_token_arrays_and_several_prompts(client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]) -> None:
    _, loaded = tiny
    ids = [loaded.tokenizer.encode(text) for text in (PROMPT, "Then", "x")]
    single = [await complete(client, prompt=prompt) for prompt in ids]
    assert single[0]["choices"] == (await complete(client))["choices"]
    together = await complete(client, prompt=ids, n=2)
    texts = [answer["choices"][0]["text"] for answer in single for _ in range(2)]
    assert [choice["text"] for choice in together["choices"]] == texts
    assert [choice["index"] for choice in together["choices"]] == list(range(6))
    assert together["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert together["usage"]["completion_tokens"] == 6 * 16


async def test_seed_repeats_an_answer_and_n_varies_it(client: httpx.AsyncClient) -> None:
    first, second = [await complete(client, temperature=1, seed=3, n=4) for _ in range(2)]
    assert first["choices"] == second["choices"]
    assert len({choice["text"] for choice in first["choices"]}) == 4
    assert (await complete(client, temperature=1, seed=4, n=4))["choices"] != first["choices"]


async def test_stop_text_ends_the_answer_before_it(client: httpx.AsyncClient) -> None:
    whole = (await complete(client, max_tokens=40))["choices"][0]["text"]
    stop = whole[10:13]
    answer = await complete(client, max_tokens=40, stop=["never said", stop])
    [choice] = answer["choices"]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < 40


async def test_no_tokens_is_an_empty_completion(client: httpx.AsyncClient) -> None:
    answer = await complete(client, max_tokens=0)
    assert answer["choices"][0]["text"] == ""
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert (await complete(client, max_tokens=0, echo=True))["choices"][0]["text"] == PROMPT


async def test_prompts_that_the_base_has_scored_are_not_computed_again(
    client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]
) -> None:
    passes: list[None] = []
    tiny[1].model.register_forward_hook(lambda *_: passes.append(None))
    scored = {"max_tokens": 0, "echo": True, "logprobs": 1}
    first = (await complete(client, **scored))["choices"]
    assert len(passes) == 1, "guard: one pass, and none for a token that nobody wants"
    assert (await complete(client, **scored))["choices"] == first
    assert len(passes) == 1, "guard: the same prompt again"
    assert (await complete(client, **scored | {"logprobs": 2}))["choices"] != first
    assert (await complete(client, **scored | {"prompt": f"{PROMPT}."}))["choices"] != first
    assert len(passes) == 3
    several = (await complete(client, **scored | {"prompt": [PROMPT, f"{PROMPT}.", "Two"]}))["choices"]
    assert [several[0]["logprobs"], len(passes)] == [first[0]["logprobs"], 4]


async def test_echo_with_logprobs_scores_the_prompt(client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]) -> None:
    _, loaded = tiny
    answer = await complete(client, prompt="Aé", echo=True, logprobs=2, max_tokens=3)
    [choice] = answer["choices"]
    logprobs = choice["logprobs"]
    ids = loaded.tokenizer.encode("Aé")
    ids += greedy(loaded, None, ids, 3)
    assert choice["text"].startswith("Aé")
    assert logprobs["text_offset"][:4] == [0, 1, 1, 2]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    expected_TV = torch.log_softmax(logits_of(loaded, None, ids), dim=-1)
    expected = [float(logprobs_V[token]) for logprobs_V, token in zip(expected_TV, ids[1:], strict=False)]
    assert logprobs["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)


async def test_chat_logprobs_have_openais_shape(client: httpx.AsyncClient) -> None:
    answer = await chat(client, logprobs=True, top_logprobs=3)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == answer["usage"]["completion_tokens"]
    for token in content:
        assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0]["logprob"] == token["logprob"]  # greedy: the likeliest was chosen
    said = bytes(byte for token in content for byte in token["bytes"]).decode(errors="replace")
    assert said == answer["choices"][0]["message"]["content"]
    assert (await chat(client, logprobs=True))["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


async def test_penalties_change_what_is_said(client: httpx.AsyncClient) -> None:
    plain = await complete(client, max_tokens=60)
    penalised = await complete(client, max_tokens=60, frequency_penalty=2, presence_penalty=2, logprobs=0)
    assert penalised["choices"][0]["text"] != plain["choices"][0]["text"]


@pytest.mark.parametrize(
    ("param", "value", "code"),
    [
        ("temperature", 2.1, "invalid_value"),
        ("temperature", "hot", "invalid_value"),
        ("top_p", -0.1, "invalid_value"),
        ("n", 0, "invalid_value"),
        ("n", 129, "invalid_value"),
        ("max_tokens", -1, "invalid_value"),
        ("logprobs", 6, "invalid_value"),
        ("stop", ["a", "b", "c", "d", "e"], "invalid_value"),
        ("stop", "", "invalid_value"),
        ("seed", 2**63, "invalid_value"),
        ("prompt", [], "invalid_value"),
        ("prompt", [[]], "invalid_value"),
        ("prompt", [-1], "invalid_value"),
        ("prompt", [262], None),
        ("prompt", "absent", "missing_required_parameter"),
        ("model", "absent", "missing_required_parameter"),
        ("prompt", "", None),
        ("stream_options", {"include_usage": True}, None),
        ("best_of", 2, "unsupported_parameter"),
        ("prompt_embeds", "AAAA", "unsupported_parameter"),
        ("logit_bias", {"5": 1}, "unsupported_parameter"),
    ],
)
async def test_what_a_completion_cannot_be_is_refused_by_name(
    client: httpx.AsyncClient, param: str, value: object, code: str | None
) -> None:
    error = await refusal(client, **{param: value})
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(("prompt", "n", "param"), [("a", 129, "prompt"), ([5], 129, "prompt"), ("a", 65, "n")])
async def test_too_many_choices_are_refused_by_their_number_whatever_makes_them_many(
    client: httpx.AsyncClient, prompt: object, n: int, param: str
) -> None:
    error = await refusal(client, prompt=[prompt] * n, n=2 if param == "n" else 1)
    assert (error["param"], error["message"]) == (param, "'n' times the number of prompts is at most 128.")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [(["a"] * 2049, "at most 2048 items"), ([[5]] * 2049, "at most 2048 items"), ([-1], "greater than or equal to 0")],
)
async def test_a_prompt_that_is_almost_right_is_told_what_is_wrong(
    client: httpx.AsyncClient, prompt: object, said: str
) -> None:
    error = await refusal(client, prompt=prompt)
    assert said in error["message"] and error["param"] == "prompt"


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("messages", []),
        ("messages", [{"role": "wizard", "content": "x"}]),
        ("messages", [{"content": "x"}]),
        ("messages[0].content", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages[0].content", [{"role": "user", "content": "<|end|>"}]),
        ("messages[0].tool_calls[0]", [{"role": "assistant", "tool_calls": [CALL]}]),
        ("messages[0].tool_calls[0]", [{"role": "assistant", "content": "x", "function_call": CALL["function"]}]),
        ("messages", [{"role": "assistant", "tool_calls": [{"id": "a"}]}]),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
        ("chat_template", "{{ x }}"),
        ("top_logprobs", 3),
    ],
)
async def test_what_a_chat_cannot_be_is_refused_by_name(client: httpx.AsyncClient, param: str, value: object) -> None:
    field = param.partition("[")[0]
    assert (await refusal(client, "/v1/chat/completions", **{field: value}))["param"] == param


async def test_both_limits_at_once_are_refused(client: httpx.AsyncClient) -> None:
    error = await refusal(client, "/v1/chat/completions", max_tokens=1, max_completion_tokens=1)
    assert error["param"] == "max_tokens"


async def test_text_parts_and_nulls_are_understood(client: httpx.AsyncClient) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    answer = await chat(client, messages=parts, stop=None, seed=None, tools=None, user="somebody")
    assert answer["choices"] == (await chat(client))["choices"]


async def test_too_long_is_refused_with_the_numbers(client: httpx.AsyncClient) -> None:
    error = await refusal(client, prompt="x" * 300)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "256" in error["message"] and "300" in error["message"]
    error = await refusal(client, max_tokens=250)
    assert error["code"] == "context_length_exceeded"
    assert "266" in error["message"]
    error = await refusal(client, "/v1/chat/completions", messages=[{"role": "user", "content": "x" * 300}])
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert (await complete(client, prompt="x" * 250))["usage"]["completion_tokens"] <= 6


async def test_body_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    for content in (b"{", b"[]", b""):
        response = await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("The body of your request is")


async def test_unknown_paths_and_models_are_404(client: httpx.AsyncClient) -> None:
    response = await client.get("/v2/nothing")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "invalid_request_error")
    for model in ("gpt-9", "ft:tiny:acme::12345678", "ft:" + "x" * 500, "../etc"):
        response = await client.post("/v1/completions", json={"model": model, "prompt": "x"})
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


async def test_alias_is_answered_under_the_bases_own_name(client: httpx.AsyncClient) -> None:
    assert (await complete(client, model="gpt-tiny"))["model"] == "tiny"
    models = (await client.get("/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["tiny", "gpt-tiny"]


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    await complete(client, n=2)
    assert (await client.get("/health")).status_code == 200
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'luthier_engine_generation_tokens_total{model_name="tiny"} 32' in response.text
    assert f'luthier_engine_prompt_tokens_total{{model_name="tiny"}} {len(PROMPT)}' in response.text
    assert 'luthier_engine_num_requests_running{model_name="tiny"} 0' in response.text
