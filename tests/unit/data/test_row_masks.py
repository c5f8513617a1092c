"""The text of a row's mask is the row as the base reads it, and its flags are the trained mask, token by token."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.domain.check import Counts, LengthBucket, Piece
from service.recipes.formats.completion import PromptRow
from tests.given.templates import SHAPES, tokenizer_for
from tests.given.templates.families import ROWS, family_text
from tests.given.templates.rendering import CONVERSATION, chat_row
from tests.servers.chat_templates import real_templates
from workers.data.base_text import BaseText
from workers.data.messages import RenderError
from workers.data.render import Rendered, Renderer
from workers.data.row_masks import counts, pieces, row_masks
from workers.data.tokenized import DatasetBuilder, TokenizedDataset

ROW = {"messages": [{"role": "system", "content": "Du kennst Gitarren. 🎸"}, *CONVERSATION]}


def built(sequences: Sequence[Rendered]) -> TokenizedDataset:
    builder = DatasetBuilder()
    for sequence in sequences:
        builder.add(sequence.ids, sequence.trained)
    return builder.build()


def flags(pieces: Sequence[Piece]) -> list[int]:
    """One for every token."""
    return [int(piece.trained) for piece in pieces for _ in range(piece.tokens)]


def check(text: BaseText, sequences: Sequence[Rendered]) -> None:
    (mask,) = row_masks(built(sequences), [len(sequences)], text.tokenizer)
    assert len(mask.sequences) == len(sequences)
    for shown, sequence in zip(mask.sequences, sequences, strict=True):
        assert flags(shown.pieces) == list(sequence.trained)
        assert shown.tokens == len(sequence.ids)
        whole = text.tokenizer.decode(sequence.ids, clean_up_tokenization_spaces=False)
        assert "".join(piece.text for piece in shown.pieces) == whole
        place = 0
        for piece in shown.pieces:
            ids = sequence.ids[place : place + piece.tokens]
            assert piece.text == text.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            place += piece.tokens


def test_masks_of_real_templates_equal_what_trains() -> None:
    shown = set()
    for name, template in real_templates().items():
        text = family_text(name, template)
        for kind in ("plain", "multi-turn", "tools", "reasoning"):
            try:
                sequences = Renderer(text).render(chat_row(ROWS[kind]))
            except RenderError:
                continue
            check(text, sequences)
            shown.add(name)
    assert len(shown) >= 10


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_of_every_shape_of_tokenizer_equal_what_trains(shape: str) -> None:
    text = BaseText(tokenizer_for(shape))
    row = {"messages": CONVERSATION} if shape.startswith("mistral") else ROW
    check(text, Renderer(text).render(chat_row(row)))


def test_the_mask_of_a_completion_is_its_completion() -> None:
    text = BaseText(tokenizer_for("llama3"))
    sequences = Renderer(text).render(PromptRow(prompt="How long? ", completion="A day."))
    check(text, sequences)
    (mask,) = row_masks(built(sequences), [1], text.tokenizer)
    assert [(piece.text, piece.trained) for piece in mask.sequences[0].pieces] == [
        ("<|begin_of_text|>How long? ", False),
        ("A day.<|eot_id|>", True),
    ]


def test_a_space_that_the_decoder_drops_at_a_beginning_is_kept_between_pieces() -> None:
    backend = Tokenizer(models.BPE({"\u2581": 0, "a": 1, "b": 2}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    found = pieces([0, 1, 0, 2, 0, 1], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], tokenizer)
    assert [piece.text for piece in found] == ["a", " b", " a"]


def test_weights_part_what_is_trained() -> None:
    builder = DatasetBuilder()
    builder.add([10, 11, 12, 13], [0, 1, 1, 1])
    dataset = builder.build()
    weights = dataset.trained.astype("float32")
    weights[3] = 0.5
    weighted = TokenizedDataset(dataset.tokens, dataset.trained, dataset.offsets, token_weights=weights)
    (mask,) = row_masks(weighted, [1], tokenizer_for("bundled"))
    found = [(piece.tokens, piece.trained, piece.weight) for piece in mask.sequences[0].pieces]
    assert found == [(1, False, 0.0), (2, True, 1.0), (1, True, 0.5)]


def counted(*lengths: int) -> Counts:
    builder = DatasetBuilder()
    for length in lengths:
        builder.add([5] * length, [0] * (length - 1) + [1])
    return counts(builder.build(), [1] * len(lengths), 256)


def test_counts_are_exact() -> None:
    builder = DatasetBuilder()
    for length in (1, 31, 32, 63, 64, 200):
        builder.add([5] * length, [0] * (length - 1) + [1])
    found = counts(builder.build(rows_per_example=2), [2, 2, 2], 256)
    assert (found.rows, found.sequences, found.examples) == (3, 6, 3)
    assert (found.tokens, found.trained_tokens, found.longest_tokens) == (391, 6, 200)


def test_lengths_are_counted_in_four_buckets_of_each_doubling_from_the_shortest_to_the_longest() -> None:
    buckets = [(bucket.at_least, bucket.below, bucket.sequences) for bucket in counted(33, 38, 39, 64, 64).lengths]
    assert buckets == [(32, 39, 2), (39, 46, 1), (46, 54, 0), (54, 64, 0), (64, 77, 2)]
    assert counted(1, 1).lengths == [LengthBucket(1, 2, 2)]
    lengths = range(1, 200)
    found = counted(*lengths).lengths
    assert all(one.below == other.at_least for one, other in pairwise(found))
    assert [one.sequences for one in found[:-1]] == [one.below - one.at_least for one in found[:-1]]
    assert sum(one.sequences for one in found) == len(lengths)
