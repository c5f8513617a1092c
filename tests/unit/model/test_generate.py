"""Rows generated together are the rows generated alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tests.given.engines import LORA, PROMPT, greedy, load_tiny, logits_of, save_adapter
from tests.given.own_tunings import OWN_SPECS, LastOfPromptSettings, offer_own
from workers.engines.embedded.batcher import lane_of
from workers.model.adapters import Adapters
from workers.model.generate import PIECE_TOKENS, BatchRow, DecodingBatch
from workers.model.load import LoadedBase
from workers.model.sampling import Sampling, choose

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedBase:
    return load_tiny(tmp_path / "base")[1]


def ids_of(length: int, seed: int) -> list[int]:
    return torch.randint(6, 262, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(batch: DecodingBatch, rows: list[BatchRow], num_tokens: int) -> None:
    """Joins the rows one turn after the other; each leaves after `num_tokens`."""
    waiting = list(rows)
    while waiting or batch.rows:
        if waiting:
            batch.join(batch.prefill([waiting.pop(0)]))
        batch.sample()
        batch.keep({row for row in batch.rows if len(row.generated) < num_tokens})
        batch.advance()


def test_mixed_batch_says_what_each_adapter_says_alone(loaded: LoadedBase, tmp_path: Path) -> None:
    folders = [
        None,
        save_adapter(loaded, tmp_path / "a", 1),
        save_adapter(loaded, tmp_path / "b", 2, LORA | {"lora": LORA["lora"] | {"r": 7}}),
        save_adapter(loaded, tmp_path / "c", 3, PROMPT),
        save_adapter(loaded, tmp_path / "d", 4, LORA | {"lora": LORA["lora"] | {"target_modules": ["q_proj"]}}),
    ]
    prompts = [ids_of(length, length) for length in (9, 3, 17, 5, 1)]
    expected = [greedy(loaded, folder, prompt, 12) for folder, prompt in zip(folders, prompts, strict=True)]
    adapters = Adapters(loaded.model)
    attached = [folder and adapters.attach(folder) for folder in folders]
    rows = [BatchRow(prompt, GREEDY, adapter) for prompt, adapter in zip(prompts, attached, strict=True)]
    run(DecodingBatch(loaded), rows, 12)
    assert [row.generated for row in rows] == expected
    assert len({tuple(answer) for answer in expected}) == len(expected)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scored", [True, False])
def test_prompts_of_one_model_are_computed_together_and_say_what_each_says_alone(
    loaded: LoadedBase, tmp_path: Path, scored: bool, packed: bool
) -> None:
    folders = [None, save_adapter(loaded, tmp_path / "a", 1), save_adapter(loaded, tmp_path / "b", 2, PROMPT)]
    adapters = Adapters(loaded.model)
    attached = [folder and adapters.attach(folder) for folder in folders]
    lengths, of = (9, 6, 17, 12, 9, 1, 7, 9), (0, 0, 1, 1, 1, 0, 2, 2)
    prompts = [ids_of(length, length) for length in lengths]

    def rows(*, together: bool) -> list[tuple[BatchRow, list[float | None]]]:
        made = [
            BatchRow(ids, GREEDY, attached[who], 1, score_prompt=scored) for ids, who in zip(prompts, of, strict=True)
        ]
        batch = DecodingBatch(loaded)
        every = [[row] for row in made]
        computed = batch.prefill_all(every) if together else [batch.prefill(one) for one in every]
        for prefilled in computed:
            batch.join(prefilled)
        for _ in range(6):
            batch.sample()
            batch.advance()
        return [(row, [token.logprob for token in one.scores]) for row, one in zip(made, computed, strict=True)]

    alone = rows(together=False)
    assert loaded.unpacked_because == ""
    vars(loaded)["unpacked_because"] = "" if packed else "as if its layers had refused"
    passes: list[None] = []
    outputs: list[int] = []
    counting = [
        loaded.model.base_model.layers[0].register_forward_hook(lambda *_: passes.append(None)),
        loaded.model.get_output_embeddings().register_forward_hook(  # type: ignore[no-untyped-call]
            lambda _, __, logits: outputs.append(logits.shape[:-1].numel())
        ),
    ]
    found = rows(together=True)
    for hook in counting:
        hook.remove()
    expected_passes = 4 if packed else 5  # 9, 6 and 1; 17, 12 and 9; those of virtual tokens alone; padded also 1 alone
    assert len(passes) - 6 == expected_passes, "guard"
    if not scored:
        assert sum(outputs[:-6]) == len(prompts), "guard: the output layer computes one position of each prompt"
    for (row, scores), (expected, expected_scores) in zip(found, alone, strict=True):
        assert row.generated == expected.generated
        assert scores == pytest.approx(expected_scores, abs=1e-5)
        assert len(scores) == (len(row.prompt) - 1 if scored else 0)


def test_sliding_windows_see_as_far_as_they_should(loaded: LoadedBase) -> None:
    config = MistralConfig(
        vocab_size=262, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    sliding = replace(loaded, model=MistralForCausalLM(config).eval())
    prompts = [ids_of(length, length) for length in (9, 3, 17)]
    rows = [BatchRow(prompt, GREEDY) for prompt in prompts]
    run(DecodingBatch(sliding), rows, 12)
    assert [row.generated for row in rows] == [greedy(sliding, None, prompt, 12) for prompt in prompts]


def test_detached_adapters_leave_the_base_as_it_was(loaded: LoadedBase, tmp_path: Path) -> None:
    folder = save_adapter(loaded, tmp_path / "a", 1)
    prompt = ids_of(8, 0)
    before, tuned = greedy(loaded, None, prompt, 8), greedy(loaded, folder, prompt, 8)
    adapters = Adapters(loaded.model)
    batch = DecodingBatch(loaded)
    for _ in range(2):
        adapter = adapters.attach(folder)
        row = BatchRow(prompt, GREEDY, adapter)
        run(batch, [row], 8)
        assert row.generated == tuned
        assert greedy(loaded, None, prompt, 8) == before  # outside of a batch, no row's adapter is left behind
        adapters.detach(adapter)
        row = BatchRow(prompt, GREEDY)
        run(batch, [row], 8)
        assert row.generated == before


def test_seeded_row_does_not_depend_on_its_neighbours(loaded: LoadedBase) -> None:
    batch = DecodingBatch(loaded)
    seeded = [BatchRow(ids_of(6, 6), Sampling(seed=7)) for _ in range(2)]
    run(batch, [seeded[0]], 20)
    run(batch, [BatchRow(ids_of(30, 1), Sampling()), seeded[1], BatchRow(ids_of(2, 2), Sampling())], 20)
    assert seeded[0].generated == seeded[1].generated
    other = BatchRow(ids_of(6, 6), Sampling(seed=8))
    run(batch, [other], 20)
    assert other.generated != seeded[0].generated


def test_rows_that_share_a_prompt_are_computed_once_and_draw_for_themselves(loaded: LoadedBase) -> None:
    batch = DecodingBatch(loaded)
    alone = [BatchRow(ids_of(6, 6), Sampling(seed=seed)) for seed in range(3)]
    together = [BatchRow(ids_of(6, 6), Sampling(seed=seed)) for seed in range(3)]
    run(batch, alone, 10)
    batch.join(batch.prefill(together))
    for _ in range(10):
        batch.sample()
        batch.advance()
    assert [row.generated for row in together] == [row.generated for row in alone]


@pytest.mark.parametrize("kind", ["base", "lora", "prompt"])
def test_logprobs_are_those_of_a_plain_forward_pass(loaded: LoadedBase, tmp_path: Path, kind: str) -> None:
    specs = {"lora": LORA, "prompt": PROMPT}
    folder = save_adapter(loaded, tmp_path / "a", 1, specs[kind]) if kind in specs else None
    prompt = ids_of(11, 3)
    answer = greedy(loaded, folder, prompt, 5)
    expected_TV = torch.log_softmax(logits_of(loaded, folder, prompt + answer), dim=-1)
    adapters = Adapters(loaded.model)
    batch = DecodingBatch(loaded)
    row = BatchRow(prompt, GREEDY, folder and adapters.attach(folder), num_top=3, score_prompt=True)
    prefilled = batch.prefill([row])
    batch.join(prefilled)
    tokens = list(prefilled.scores)
    for _ in range(5):
        tokens += batch.sample()
        batch.advance()
    assert [token.id for token in tokens] == (prompt + answer)[1:]
    for token, logprobs_V in zip(tokens, expected_TV, strict=False):
        assert token.logprob == pytest.approx(float(logprobs_V[token.id]), abs=1e-4)
        top = logprobs_V.topk(3)
        assert [id for id, _ in token.top] == top.indices.tolist()
        assert [logprob for _, logprob in token.top] == pytest.approx(top.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", ["base", "prompt", "loreft", *OWN_SPECS])
def test_long_prompt_is_fed_in_pieces(
    loaded: LoadedBase, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_own(monkeypatch)
    specs = {"prompt": PROMPT, "loreft": {"type": "loreft", "loreft": {"first": 20, "last": 20}}, **OWN_SPECS}
    folder = save_adapter(loaded, tmp_path / "a", 1, specs[kind]) if kind in specs else None
    prompt = ids_of(PIECE_TOKENS + 30, 5)
    expected_TV = torch.log_softmax(logits_of(loaded, folder, prompt), dim=-1)
    adapter = folder and Adapters(loaded.model).attach(folder)
    batch = DecodingBatch(loaded, lane_of(adapter))
    row = BatchRow(prompt, GREEDY, adapter, num_top=0, score_prompt=True)
    prefilled = batch.prefill([row])
    batch.join(prefilled)
    batch.sample()
    assert row.generated == [int(expected_TV[-1].argmax())]
    assert [token.id for token in prefilled.scores] == prompt[1:]
    expected = [float(logprobs_V[token]) for logprobs_V, token in zip(expected_TV, prompt[1:], strict=False)]
    assert [token.logprob for token in prefilled.scores] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["loreft", "bottleneck", "partial", *OWN_SPECS])
def test_two_prompts_of_any_tuning_are_computed_together_as_each_alone(
    loaded: LoadedBase, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_own(monkeypatch)
    specs = {
        "loreft": {"type": "loreft", "loreft": {"first": 2, "last": 2}},
        "bottleneck": {"type": "bottleneck", "bottleneck": {}},
        "partial": {"type": "partial", "partial": {"parameters": "last:1"}},
        **OWN_SPECS,
    }
    monkeypatch.setattr(LastOfPromptSettings, "unpacked_because", "as an extension's may be")
    adapter = Adapters(loaded.model).attach(save_adapter(loaded, tmp_path / "a", 1, specs[kind]))
    batch = DecodingBatch(loaded, lane_of(adapter))
    assert loaded.unpacked_because == ""
    sizes: list[int] = []
    layer = adapter.tuning.model.base_model.layers[0]
    layer.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    rows = [BatchRow(ids_of(length, length), GREEDY, adapter, 0, score_prompt=True) for length in (9, 6, 2)]
    alone = [batch.prefill([row]) for row in rows]
    for one, expected in zip(batch.prefill_all([[row] for row in rows]), alone, strict=True):
        assert torch.allclose(one.logits_NV, expected.logits_NV, atol=1e-4)
        logprobs = [token.logprob for token in expected.scores]
        assert [token.logprob for token in one.scores] == pytest.approx(logprobs, abs=1e-4)
    together = sizes[len(rows) :]  # rows of each pass
    if kind == LastOfPromptSettings.name:
        assert sorted(together) == [1, 2], "9 and 6 are padded; 2 is shorter than half of them"
    else:
        assert together == [1] * (3 if adapter.tuning.num_virtual_tokens else 1)


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = [(place + 0.5) / 1000 for place in range(1000)]
    logits_BV = probabilities.log().expand(1000, -1)

    def shares(sampling: Sampling) -> list[float]:
        tokens = choose(logits_BV, [sampling] * 1000, [[]] * 1000, draws)
        return [tokens.count(token) / 1000 for token in range(4)]

    assert shares(Sampling()) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-3)
    assert shares(Sampling(top_p=0.75)) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-3)
    assert shares(Sampling(top_p=0.0)) == [1, 0, 0, 0]
    assert shares(Sampling(temperature=0.0)) == [1, 0, 0, 0]
    assert shares(Sampling(temperature=1e-9)) == [1, 0, 0, 0]
    squared = probabilities**2 / (probabilities**2).sum()
    assert shares(Sampling(temperature=0.5)) == pytest.approx(squared.tolist(), abs=2e-3)


def test_penalties_follow_openais_formula() -> None:
    logits_BV = torch.tensor([[1.0, 0.9, 0.0]])
    assert choose(logits_BV, [GREEDY], [[0, 0]], [0.0]) == [0]
    assert choose(logits_BV, [Sampling(temperature=0, presence_penalty=0.05)], [[0, 0]], [0.0]) == [0]
    assert choose(logits_BV, [Sampling(temperature=0, presence_penalty=0.2)], [[0, 0]], [0.0]) == [1]
    assert choose(logits_BV, [Sampling(temperature=0, frequency_penalty=0.06)], [[0, 0]], [0.0]) == [1]
    assert choose(logits_BV, [Sampling(temperature=0, frequency_penalty=0.06)], [[0]], [0.0]) == [0]
    assert logits_BV.tolist() == [[pytest.approx(1.0), pytest.approx(0.9), 0.0]]
