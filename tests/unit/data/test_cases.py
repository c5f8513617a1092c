"""Files that broke a product like this one, each a member of a kind: what becomes of them here.

They are beside the repository, not in it; our own members of every kind are in the tests of the kind.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from service.recipes.dataset import parse_row
from service.recipes.json_lines import split_lines
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.upload_check import UploadCheck
from tests.given.running_service import ROOT
from tests.given.templates import tokenizer_for
from tests.given.templates.families import family_text
from tests.given.templates.kinds import old_sentencepiece
from tests.given.templates.rendering import chat_row, spans
from tests.servers.chat_templates import real_templates
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.messages import RenderError
from workers.data.render import Renderer, encode_chat, encode_prompt
from workers.data.template import ChatTemplate

LIMIT = 1_000_000


def folder_of(name: str) -> Path:
    folders = [parent / "shared" / "cases" for parent in ROOT.parents]
    found = next((folder for folder in folders if (folder / name).is_file()), None)
    if found is None:
        pytest.skip(f"{name} is in no folder shared/cases beside the repository")
    return found


def case(name: str) -> bytes:
    return (folder_of(name) / name).read_bytes()


def bundled() -> BaseText:
    return BaseText(tokenizer_for("bundled"))


def family(name: str) -> BaseText:
    return family_text(name, real_templates()[name])


def check(name: str, text: BaseText) -> int:
    rest: dict[str, Any] = {"param": "training_file", "file_id": "file-1", "objective": SupervisedSettings}
    lines = split_lines([case(name)], LIMIT)
    return len(check_file(lines, text, context_tokens=4096, row_limit_bytes=LIMIT, examples_minimum=10, **rest))


def problems(name: str, text: BaseText) -> list[dict[str, Any]]:
    with pytest.raises(DatasetInvalid) as caught:
        check(name, text)
    found: list[dict[str, Any]] = caught.value.details["problems"]
    return found


def learned(name: str, text: BaseText) -> str:
    """What the first row of a file trains; its prompt is asserted to be the engine's."""
    row = json.loads(case(name).splitlines()[0])
    sequence = Renderer(text).render(chat_row(row))[-1]
    start, end = spans(sequence)[-1]
    assert sequence.ids[:start] == encode_chat(ChatTemplate(text), row["messages"][:-1], row.get("tools"))
    assert end == len(sequence.ids)
    decoded: str = text.tokenizer.decode(sequence.ids[start:end])
    return decoded


@pytest.mark.parametrize(
    ("name", "base", "answer"),
    [
        ("01-reasoning-dropped.jsonl", "deepseek_r1_distill", "A spider has eight legs, so 1 have eight times 1."),
        ("01-reasoning-dropped.jsonl", "qwen3", "<think>\nA spider has eight legs, so 1 have eight times 1.\n</think>"),
        ("04-prefilled-think.jsonl", "qwen3_5_think", "\n</think>\n\nIt is 1.<|im_end|>"),
        ("18-reasoning-content-field.jsonl", "qwen3", "<think>\nOne more than 0.\n</think>\n\nIt is 1.<|im_end|>"),
        ("18-reasoning-content-field.jsonl", "qwen3_8", "One more than 0.\n</think>\n\nIt is 1.<|im_end|>"),
        ("19-qwen3-8-inline-think.jsonl", "qwen3_8", "One more than 0.\n</think>\n\nIt is 1.<|im_end|>"),
    ],
)
def test_reasoning_trains_behind_the_prompt_of_an_engine(name: str, base: str, answer: str) -> None:
    text = family(base)
    assert learned(name, text).startswith(answer)
    assert check(name, text) >= 10


@pytest.mark.parametrize("base", ["gptoss", "gemma4_v2", "gemma4_v4", "glm4moe"])
def test_a_tool_call_trains_to_the_token_that_ends_it(base: str) -> None:
    text = family(base)
    assert check("03-tool-call-other-end-token.jsonl", text) >= 10
    row = json.loads(case("03-tool-call-other-end-token.jsonl").splitlines()[0])
    calls = [index for index, message in enumerate(row["messages"]) if message.get("tool_calls")]
    until_call = row | {"messages": row["messages"][: calls[-1] + 1]}
    last = Renderer(text).render(chat_row(until_call))[-1].ids[-1]
    assert last in ChatTemplate(text).end_ids


def test_an_answer_that_cannot_follow_the_prefill_is_refused_with_how_to_write_it() -> None:
    found = problems("04-prefilled-think.jsonl", family("deepseek_r1_distill"))
    assert {problem["field"] for problem in found} == {"messages[1].content"}
    assert "write the content as '<think>\\n...\\n</think>" in found[0]["reason"]


def test_reasoning_that_a_template_does_not_show_is_refused_by_its_field() -> None:
    found = problems("18-reasoning-content-field.jsonl", family("llama3"))
    assert found[0]["field"] == "messages[1].reasoning_content"
    assert "does not show reasoning" in found[0]["reason"]


def test_an_empty_prompt_trains_where_it_can_be_asked() -> None:
    prompt = json.loads(case("17-empty-prompt-request.json"))["prompt"]
    with_begin = BaseText(tokenizer_for("llama3"))
    assert check("05-empty-prompt.jsonl", with_begin) >= 10
    assert encode_prompt(with_begin, prompt) == [with_begin.special_id("<|begin_of_text|>")]
    assert encode_prompt(bundled(), prompt) == []  # a 400 of the engine
    assert {problem["field"] for problem in problems("05-empty-prompt.jsonl", bundled())} == {"prompt"}


def test_alpaca_rows_are_named() -> None:
    (found,) = problems("06-alpaca-row.jsonl", bundled())
    assert found["line"] == 1
    assert found["reason"].startswith("looks like an Alpaca row; write it as ")


def test_weights_written_as_decimals_train() -> None:
    assert check("08-weight-as-1.0.jsonl", bundled()) >= 10


def test_answers_behind_a_space_train() -> None:
    assert check("10-json-answer-legacy-sentencepiece.jsonl", old_sentencepiece()) >= 10


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("12-two-boms.jsonl", "begins with a byte-order mark (BOM), as where two files were joined"),
        ("13-cr-only.jsonl", "the file ends its lines with a carriage return (CR) alone"),
        ("14-utf16.jsonl", "the file is UTF-16 text; save it as UTF-8"),
    ],
)
def test_one_sentence_says_what_a_file_looks_like(name: str, says: str) -> None:
    (found,) = problems(name, bundled())
    assert found["reason"].startswith(says)


def test_a_doubled_key_is_named_on_every_line() -> None:
    found = problems("15-duplicate-key.jsonl", bundled())
    assert [problem["line"] for problem in found] == list(range(1, len(found) + 1))
    assert {(problem["field"], problem["reason"]) for problem in found} == {
        ("messages[1].content", 'has the key "content" twice; remove one of them')
    }


def test_a_developer_is_shown_to_every_family_or_refused() -> None:
    messages = json.loads(case("16-developer-role-dropped.json"))["messages"]
    num_shown = 0
    for name, template in real_templates().items():
        text = family_text(name, template)
        try:
            shown = text.tokenizer.decode(encode_chat(ChatTemplate(text), messages))
        except RenderError:
            continue
        assert "LANTERN" in shown, name
        num_shown += 1
    assert num_shown > 30


def test_every_case_parses_or_says_why() -> None:
    for name in ("01-reasoning-dropped.jsonl", "08-weight-as-1.0.jsonl", "18-reasoning-content-field.jsonl"):
        for number, line in enumerate(case(name).splitlines(), start=1):
            assert isinstance(parse_row(line, number, SupervisedSettings), tuple)


def test_what_is_wrong_at_upload_is_wrong_for_the_job_in_the_same_words() -> None:
    wrong = set()
    for path in sorted(folder_of("README.md").glob("*.json*")):
        upload = UploadCheck(LIMIT)
        upload.feed(path.read_bytes())
        if details := upload.finish():
            wrong.add(path.name)
            first, *others = details.split("; line ")
            of_job = problems(path.name, bundled())
            known = {f"Line {problem['line']}: {problem['reason']}" for problem in of_job}
            known |= {problem["reason"].replace("the file", "The file", 1) for problem in of_job}
            assert {first, *(f"Line {other}" for other in others)} <= known
    assert wrong >= {"12-two-boms.jsonl", "13-cr-only.jsonl", "14-utf16.jsonl"}
