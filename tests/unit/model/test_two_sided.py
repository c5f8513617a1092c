"""Rows of an encoder-decoder generated together are those that transformers generates alone; scores are a plain
pass's."""

from pathlib import Path

import pytest
import torch

from tests.given.encoder_decoders import START, load_encoder_decoder, make_tiny_encoder_decoder
from tests.given.engines import LORA, PROMPT, save_adapter
from tests.given.tuned import logits_behind
from workers.model.adapters import Adapter, Adapters
from workers.model.generate import BatchRow, DecodingBatch
from workers.model.load import BaseUnusable, LoadedBase, load_or_explain, load_text
from workers.model.sampling import Sampling
from workers.model.two_sided import batch_for

GREEDY = Sampling(temperature=0.0)
NUM_TOKENS = 6


@pytest.fixture(scope="module")
def loaded() -> LoadedBase:
    return load_encoder_decoder("t5")


def ids_of(length: int, seed: int) -> list[int]:
    return torch.randint(6, 262, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(batch: DecodingBatch, rows: list[BatchRow]) -> None:
    """Joins the rows one turn after the other, so that their decoders are at unlike places."""
    waiting = list(rows)
    while waiting or batch.rows:
        if waiting:
            batch.join(batch.prefill([waiting.pop(0)]))
        batch.sample()
        batch.keep({row for row in batch.rows if len(row.generated) < NUM_TOKENS})
        batch.advance()


def test_rows_that_join_and_leave_are_what_the_library_generates_alone(loaded: LoadedBase) -> None:
    prompts = [ids_of(length, length) for length in (9, 3, 17, 5, 1)]
    rows = [BatchRow(prompt, GREEDY) for prompt in prompts]
    run(batch_for(loaded), rows)
    for row, prompt in zip(rows, prompts, strict=True):
        generated = loaded.model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS, do_sample=False,
            eos_token_id=None, decoder_start_token_id=START,
        )  # fmt: skip
        assert row.generated == generated[0, 1:].tolist()
    assert len({tuple(row.generated) for row in rows}) > 1


def test_adapters_of_three_kinds_decode_beside_the_base_as_alone(loaded: LoadedBase, tmp_path: Path) -> None:
    ia3 = {"type": "ia3", "ia3": {}}
    folders = [save_adapter(loaded, tmp_path / str(seed), seed, spec) for seed, spec in enumerate((LORA, PROMPT, ia3))]
    adapters = Adapters(loaded.model)
    attached: list[Adapter | None] = [None, *map(adapters.attach, folders)]
    prompts = [ids_of(length, length) for length in (9, 3, 17, 5)]

    def row(place: int) -> BatchRow:
        return BatchRow(prompts[place], GREEDY, attached[place])

    together, alone = [row(place) for place in range(4)], [row(place) for place in range(4)]
    run(batch_for(loaded), together)
    for one in alone:
        run(batch_for(loaded), [one])
    assert [row.generated for row in together] == [row.generated for row in alone]
    for adapter, one, prompt in zip(attached, alone, prompts, strict=True):
        if adapter is not None:
            logits_KV = logits_behind(adapter.tuning, prompt, one.generated)
            assert logits_KV.argmax(dim=-1)[:-1].tolist() == one.generated
            adapters.detach(adapter)


def test_a_seeded_row_does_not_depend_on_its_neighbours(loaded: LoadedBase) -> None:
    """Rows of unlike length on both sides: each token's probability is that of a plain pass over the row alone."""
    rows = [BatchRow(ids_of(length, length), Sampling(seed=length), num_top=0) for length in (30, 6, 2)]
    alone = BatchRow(rows[1].prompt, rows[1].sampling)
    run(batch_for(loaded), [alone])
    batch, waiting = batch_for(loaded), list(rows)
    found: dict[BatchRow, list[float | None]] = {row: [] for row in rows}
    while waiting or batch.rows:
        if waiting:
            batch.join(batch.prefill([waiting.pop(0)]))
        for row, token in zip(batch.rows, batch.sample(), strict=True):
            found[row].append(token.logprob)
        batch.keep({row for row in batch.rows if len(row.generated) < NUM_TOKENS})
        batch.advance()
    assert rows[1].generated == alone.generated
    for row in rows:
        assert len(set(row.generated)) > 2
        whole = torch.tensor([[START, *row.generated[:-1]]])
        with torch.no_grad():
            logits_1TV = loaded.model(input_ids=torch.tensor([row.prompt]), decoder_input_ids=whole).logits
        expected = logits_1TV[0].log_softmax(-1)[range(NUM_TOKENS), row.generated].tolist()
        assert found[row] == pytest.approx(expected, abs=1e-4)


def test_what_was_written_before_is_scored_and_continued(loaded: LoadedBase) -> None:
    prompt, written = ids_of(8, 1), ids_of(5, 2)
    row = BatchRow(prompt, GREEDY, num_top=2, score_prompt=True, written=written)
    batch = batch_for(loaded)
    prefilled = batch.prefill([row])
    batch.join(prefilled)
    batch.sample()
    batch.advance()
    (last,) = batch.sample()
    whole = torch.tensor([[START, *written, row.generated[0]]])
    with torch.no_grad():
        logprobs_TV = loaded.model(input_ids=torch.tensor([prompt]), decoder_input_ids=whole).logits[0].log_softmax(-1)
    assert [token.id for token in prefilled.scores] == written
    expected = [float(logprobs_TV[place, id]) for place, id in enumerate(written)]
    assert [token.logprob for token in prefilled.scores] == pytest.approx(expected, abs=1e-5)
    assert row.generated[0] == int(logprobs_TV[len(written)].argmax())
    assert last.logprob == pytest.approx(float(logprobs_TV[-1, last.id]), abs=1e-5)


def test_a_base_whose_decoder_counts_from_the_batchs_beginning_is_refused(tmp_path: Path) -> None:
    bart = make_tiny_encoder_decoder(tmp_path / "bart", "bart")
    with pytest.raises(BaseUnusable, match="the decoder of a bart model counts positions from the beginning"):
        load_or_explain(bart, torch.device("cpu"))


def test_the_text_side_knows_where_a_decoder_begins(tmp_path: Path) -> None:
    base = make_tiny_encoder_decoder(tmp_path)
    assert load_text(base).decoder_start_id == START == load_or_explain(base, torch.device("cpu")).text.decoder_start_id
