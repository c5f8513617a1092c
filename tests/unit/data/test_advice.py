"""Faults that were planted in a file are found, with their counts and lines; what only looks like one is not."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from service.domain.check import Advice
from service.recipes.dataset import parse_row
from service.recipes.objective import ObjectiveSettings, find_objective
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from workers.data import advice
from workers.data.advice import Advisor, leaks
from workers.data.glance import glance
from workers.data.personal import kinds_in
from workers.data.render import AnyRow

WORDS = [f"w{number}" for number in range(5000)]
NUM_ROWS = 1000


def chat(
    question: str, answer: str, system: str = "You sort the mail of a workshop for guitars and violins."
) -> dict[str, Any]:
    roles = zip(("system", "user", "assistant"), (system, question, answer), strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


def seen(rows: Sequence[dict[str, Any]], objective: type[ObjectiveSettings] = SupervisedSettings) -> Advisor:
    found = Advisor()
    for number, row in enumerate(rows, start=1):
        parsed = parse_row(json.dumps(row).encode(), number, objective)
        assert isinstance(parsed, tuple), parsed
        assert isinstance(parsed[1], AnyRow)
        found.see(glance(parsed[1], found.signs))
    return found


def counted(advice: Sequence[Advice]) -> dict[str, int | None]:
    return {one.code: one.count for one in advice}


def prompts(count: int, seed: int = 0) -> list[str]:
    """Texts of thirty words that have little in common."""
    numbers = random.Random(seed)
    return [" ".join(numbers.choices(WORDS, k=30)) for _ in range(count)]


def test_clean_rows_have_nothing_to_say() -> None:
    rows = [
        chat(prompt, f"Answer {number} of some words that differ.") for number, prompt in enumerate(prompts(NUM_ROWS))
    ]
    assert seen(rows).advice() == []


def test_ten_percent_of_duplicates_are_found_exactly() -> None:
    rows = [chat(prompt, f"An answer: {prompt[:12]}.") for prompt in prompts(NUM_ROWS)]
    copies = random.Random(1).sample(range(NUM_ROWS), NUM_ROWS // 10)
    (found,) = seen([*rows, *(rows[copy] for copy in copies)]).advice()
    assert (found.code, found.count) == ("duplicates", 100)
    assert found.lines == list(range(NUM_ROWS + 1, NUM_ROWS + 11))


def test_near_duplicates_are_found_and_likeness_has_a_limit() -> None:
    texts = prompts(200)
    rows = [chat(text, f"An answer: {text[:12]}.") for text in texts]
    near = [chat(f"{text} please", f"An answer: {text[:12]}.") for text in texts[:20]]
    others = prompts(20, 9)
    half = [
        chat(" ".join(text.split()[:15] + other.split()[15:]), "Another answer.")
        for text, other in zip(texts[:20], others, strict=True)
    ]
    found = counted(seen([*rows, *near, *half]).advice())
    assert found == {"near_duplicates": 20}


def test_rows_beyond_the_bound_are_not_compared_for_likeness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "NEAR_ROWS", 25)
    texts = prompts(20)
    rows = [chat(text, f"An answer: {text[:12]}.") for text in texts] + [
        chat(f"{text} please", f"An answer: {text[:12]}.") for text in texts[:10]
    ]
    (found,) = seen(rows).advice()
    assert (found.code, found.count) == ("near_duplicates", 5)
    assert "of the first 25 rows" in found.message


def test_flipped_labels_are_found_beside_the_prompts_that_they_contradict() -> None:
    texts = prompts(400)
    rows = [chat(text, "guitar" if number % 2 else "violin") for number, text in enumerate(texts)]
    flipped = [chat(text, "violin" if number % 2 else "guitar") for number, text in enumerate(texts[:40])]
    near = [
        chat(f"{text} please", "violin" if number % 2 else "guitar") for number, text in enumerate(texts[40:60], 40)
    ]
    found = {one.code: one for one in seen([*rows, *flipped, *near]).advice()}
    assert found["contradictory_answers"].count == 80
    assert found["contradictory_answers"].lines == list(range(1, 11))
    assert found["contradictory_labels"].count == 60  # the flipped ones are like their originals too
    assert "near_duplicates" not in found


def test_a_contradiction_of_pairs_is_one_about_the_same_answers() -> None:
    def pair(question: str, better: str, worse: str) -> dict[str, Any]:
        return {
            "input": {"messages": [{"role": "user", "content": question}]},
            "preferred_output": [{"role": "assistant", "content": better}],
            "non_preferred_output": [{"role": "assistant", "content": worse}],
        }

    rows = [pair("a", "1", "2"), pair("a", "1", "3"), pair("b", "1", "2"), pair("b", "2", "1")]
    (found,) = seen(rows, DpoSettings).advice()
    assert (found.code, found.count, found.lines) == ("contradictory_answers", 2, [3, 4])


def test_an_answer_that_is_wanted_and_unwanted_is_a_contradiction() -> None:
    rows = [{"prompt": "a", "completion": str(number % 5), "label": number < 5} for number in range(6)]
    (found,) = seen(rows, find_objective("kto")).advice()
    assert (found.code, found.count, found.lines) == ("contradictory_answers", 2, [1, 6])


def test_documents_are_compared_as_a_whole() -> None:
    texts = prompts(20)
    rows = [{"text": text} for text in [*texts, texts[0], f"{texts[1]} and more"]]
    assert counted(seen(rows, find_objective("text")).advice()) == {"duplicates": 1, "near_duplicates": 1}


def test_an_imbalance_of_labels_is_found_and_free_text_has_none() -> None:
    labels = ["common"] * 190 + ["rare"] * 10
    rows = [chat(text, label) for text, label in zip(prompts(200), labels, strict=True)]
    (found,) = seen(rows).advice()
    assert (found.code, found.count, found.lines) == ("label_imbalance", 10, list(range(191, 201)))
    assert "rare" not in found.message.replace("rarest", "")
    balanced = [chat(text, label) for text, label in zip(prompts(200), ["a", "b"] * 100, strict=True)]
    assert seen(balanced).advice() == []
    free = [*rows, chat("Something else", "An answer of many words, which no classification would give to anybody.")]
    assert seen(free).advice() == []


def test_answers_without_a_word_are_found() -> None:
    rows = [{"prompt": prompt, "completion": " yes"} for prompt in prompts(10)]
    rows += [{"prompt": "a", "completion": completion} for completion in (" ", "...", "-\n", "\U0001f3b8")]
    found = {one.code: one for one in seen(rows).advice()}["empty_answers"]
    assert (found.count, found.lines) == (3, [11, 12, 13])


PERSONAL = [
    ("email", "Write to anna.larsson@werkstatt.de today", "Write to anna@example.com or a@b"),
    ("phone", "Call +49 30 901820", "Call +49 1 and add + 12345 to it"),
    ("card", "Pay with 4111 1111 1111 1111 now", "Pay with 4111 1111 1111 1112 now"),
    ("card", "5555555555554444", "3141592653589793"),
    ("iban", "To DE89 3704 0044 0532 0130 00.", "To DE88 3704 0044 0532 0130 00."),
    ("iban", "GB82WEST12345698765432", "GB83WEST12345698765432"),
    ("key", "ghp_" + "a1B2" * 9, "ghp_short"),
    ("key", "AKIA" + "ABCDEFGH12345678", "AKIAabc"),
    ("key", "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----"),
    ("key", "sk-luthier-" + "a1B2c3D4" * 6, "sk-luthier-1"),
]


@pytest.mark.parametrize(("kind", "real", "wrong"), PERSONAL)
def test_numbers_count_only_with_the_right_check_digits(kind: str, real: str, wrong: str) -> None:
    assert kinds_in(real) == {kind}
    assert kinds_in(wrong) == set()


def test_planted_personal_data_is_counted_by_kind_and_not_told() -> None:
    texts = prompts(NUM_ROWS)
    planted = random.Random(2).sample(range(NUM_ROWS), 100)
    for place, row in enumerate(planted):
        _, real, wrong = PERSONAL[place % len(PERSONAL)]
        texts[row] += f" {real if place < 50 else wrong}"
    advice = seen([chat(text, f"An answer: {text[:12]}.") for text in texts]).advice()
    assert counted(advice) == {
        "personal_email": 5, "personal_phone": 5, "personal_card": 10, "personal_iban": 10, "secret_key": 20,
    }  # fmt: skip
    assert not any(real in str(one) for one in advice for _, real, _ in PERSONAL)
    emails = [row + 1 for place, row in enumerate(planted) if place < 50 and place % len(PERSONAL) == 0]
    assert sorted(advice[0].lines or []) == sorted(emails)


def test_a_row_costs_no_more_for_being_long() -> None:
    assert kinds_in("x" * 20_000 + " anna@werkstatt.de") == set()
    long = "a@" * 10_000 + "4 " * 10_000
    assert kinds_in(long) == set()


def test_leaks_are_found_exactly_and_nearly() -> None:
    texts, others = prompts(300), prompts(50, seed=5)
    training = [chat(text, f"An answer: {text[:12]}.") for text in texts]
    validation = [chat(text, f"An answer: {text[:12]}.") for text in others]
    validation += training[:7] + [chat(f"{text} please", f"An answer: {text[:12]}.") for text in texts[20:25]]
    found = leaks(seen(training).sketch(), seen(validation).sketch())
    assert counted(found) == {"leaked_rows": 7, "nearly_leaked_rows": 5}
    assert [one.param for one in found] == ["validation_file"] * 2
    assert found[0].lines == list(range(51, 58))
    assert leaks(seen(training).sketch(), seen(validation[:50]).sketch()) == []
