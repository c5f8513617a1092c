"""Rows through the base and the objective: with gradients to train, without to measure.

One loop for every recipe: the tuning decides which parameters are trained, the objective which loss. Keeps no state.
A step's examples go through the base in micro-batches (`plan`): packed, or padded with others of similar lengths.
Shapes: B rows, T tokens, K kept positions, S tokens of all rows, N trained positions, V vocabulary, H hidden.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from workers.data.batches import Batch, RowShape, collate
from workers.data.tokenized import TokenizedDataset
from workers.model.head import Head
from workers.model.load import LoadedBase
from workers.model.logits import next_logits
from workers.model.output_layer import losses_and_right
from workers.model.segments import Segments, arguments, attending
from workers.model.states import hidden_states
from workers.objectives import Objective, TokenLosses, logprobs
from workers.objectives.base import HeadObjective, losses_of_columns
from workers.trainer.process import plan
from workers.tunings import Tuning
from workers.tunings.base import Chunk, Inputs, plain_inputs

_LOSS = ""  # a name that no metric has


@dataclass(frozen=True)
class Measured:
    """Means over the trained tokens or pairs of some examples; `cost_tokens` counts all their tokens."""

    loss: float
    others: Mapping[str, float]  # the objective's own metrics
    cost_tokens: int
    outputs: Sequence[Tensor] = ()  # of every row, in the order of the rows; none where the objective gives none

    def named(self, prefix: str) -> dict[str, float]:
        """As metrics: `train_loss` and so on."""
        return {f"{prefix}_{name}": value for name, value in {"loss": self.loss, **self.others}.items()}


@dataclass(frozen=True)
class Sums:
    """The sums of a pass, on the device: reading them waits until the device has done all its work."""

    names: Sequence[str]  # of the objective's own metrics
    values: Tensor  # float64: the loss, then the metrics
    count: int
    cost_tokens: int
    outputs: Sequence[Tensor] = ()  # see `Measured`

    def read(self, *more: Tensor) -> tuple[Measured, list[float]]:
        """The means and the values of `more`, in one transfer from the device."""
        values: list[float] = torch.stack([*self.values, *(scalar.double() for scalar in more)]).tolist()
        (loss, *means), rest = [value / self.count for value in values[: len(self.values)]], values[len(self.values) :]
        others = {name: mean for name, mean in zip(self.names, means, strict=True) if not math.isnan(mean)}
        return Measured(loss, others, self.cost_tokens, self.outputs), rest


@dataclass(frozen=True)
class Packed:
    """A batch as the base gets it: its rows one behind the other, each after what the tuning puts before it."""

    inputs: Inputs
    segments: Segments
    num_before: int

    def place(self, row: int) -> int:
        """Of the row's first token."""
        return self.segments.begins[row] + self.num_before


class Passes:
    """The passes of one job, and the `Forward` of its objective; its tuning is active whenever they run, and whenever
    those of `by_base` run, it is not.

    Made while no tuning is active, with `unpacked_because`: why the method's rows cannot be packed, or nothing.
    """

    def __init__(self, base: LoadedBase, tuning: Tuning, objective: Objective, unpacked_because: str = "") -> None:
        self._base = base
        self._tuning = tuning
        self._objective = objective
        self._tuned = True
        self.plan = plan.CURRENT
        self.limit_tokens: int | None = None  # of a micro-batch; None: the plan's
        self.unpacked_because = unpacked_because or base.unpacked_because
        self._plain = base.has_plain_output_layer
        self.packed = self.plan >= plan.LABELS_ONLY and not self.unpacked_because

    @property
    def model(self) -> PreTrainedModel:
        """The base, or the tuning's own copy of it."""
        return self._tuning.model if self._tuned else self._base.model

    def by_base(self) -> "Passes":
        """The same passes, in the same batches, by the base without the tuning. They can only measure."""
        passes = copy.copy(self)
        passes._tuned = False
        return passes

    def train(self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None = None) -> Sums:
        """Adds the gradient of the examples' mean loss to the tuning's parameters, dropout on.

        `reference_N` belongs to the dataset's rows; see `logprobs`.
        """
        assert self._tuned, "the base has no parameters to train"
        self._tuning.train(True)
        try:
            return self._pass(dataset, examples, reference_N, learn=True)
        finally:
            self._tuning.train(False)

    def cut_smaller(self, dataset: TokenizedDataset, examples: Sequence[int]) -> bool:
        """Lowers `limit_tokens` until these examples are cut into more micro-batches; False where they cannot be."""
        before, count = self.limit_tokens, len(self._groups(dataset, examples))
        limit = before or plan.LIMIT_TOKENS
        while limit > 1:
            limit //= 2
            self.limit_tokens = limit
            if len(self._groups(dataset, examples)) > count:
                return True
        self.limit_tokens = before
        return False

    def measure(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None = None
    ) -> Measured:
        """The examples' mean loss, dropout off."""
        with torch.no_grad():
            measured, _ = self._pass(dataset, examples, reference_N, learn=False).read()
        return measured

    def logprobs(self, dataset: TokenizedDataset, examples: Sequence[int]) -> dict[int, float]:
        """row -> log-probability, for each row of the examples; dropout off, in the same batches as `train`."""
        places: list[int] = []
        found = []
        with torch.no_grad():
            for rows, batch in self._batches(dataset, examples, None):
                places += rows
                found.append(logprobs(self, batch.to(self._base.device)))
        return dict(zip(places, torch.cat(found).tolist(), strict=True))

    def next_logprobs(self, ids: Sequence[int], second: Sequence[int] = ()) -> Tensor:
        """logprobs_KV: log p(any token | tokens before) at every place but the first, dropout off.

        The row goes alone and unpacked, as in an engine, and as the base's does: packed attention rounds otherwise in
        bfloat16, and the difference would count as an effect of the tuning. `second` is what the encoder of an
        encoder-decoder reads.
        """
        row, keep_K = self._alone(ids, second)
        with torch.no_grad():
            return self._padded_logits(row, keep_K)[0].float().log_softmax(dim=-1)

    def base_next_logprobs(self, ids: Sequence[int], second: Sequence[int] = ()) -> Tensor:
        """The same without the tuning, which must not be active."""
        return self.by_base().next_logprobs(ids, second)

    def next_logprobs_together(self, rows: Sequence[Sequence[int]], *, tuned: bool) -> list[Tensor]:
        """`next_logprobs` of rows packed into one pass, or, not `tuned`, `base_next_logprobs`. Only where `packed`."""
        return (self if tuned else self.by_base())._next_logprobs_together(rows)

    def _next_logprobs_together(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        longest = max(len(ids) for ids in rows)
        lengths_B = torch.tensor([len(ids) for ids in rows])
        ids_BT = torch.tensor([[*ids, *[self._base.pad_id] * (longest - len(ids))] for ids in rows])
        mask_BT = (torch.arange(longest) < lengths_B[:, None]).long()
        shapes = tuple(RowShape(len(ids), np.arange(len(ids) - 1)) for ids in rows)
        batch = Batch(ids_BT, mask_BT, ids_BT, prompt_lengths_B=lengths_B, shapes=shapes).to(self._base.device)
        packed, model = self._packed(batch), self.model
        keep_K = _on(self._base.device, [shape.trained + packed.place(row) for row, shape in enumerate(shapes)])
        with torch.no_grad(), attending(model):
            if not self._tuned and self._plain:
                states_KH = self._base.kept_states.of(
                    rows, lambda: self._packed_states(packed, model).index_select(0, keep_K)
                )
                logits_KV: Tensor = model.get_output_embeddings()(states_KH)  # type: ignore[no-untyped-call]
            else:
                logits_KV = model(
                    **packed.inputs.tensors, **arguments(packed.segments), use_cache=False, logits_to_keep=keep_K
                ).logits[0]
            return list(torch.split(logits_KV.float().log_softmax(dim=-1), [len(shape.trained) for shape in shapes]))

    def _alone(self, ids: Sequence[int], second: Sequence[int] = ()) -> tuple[Batch, Tensor]:
        ids_1T = torch.tensor([list(ids)], device=self._base.device)
        row = Batch(ids_1T, torch.ones_like(ids_1T), ids_1T, prompt_lengths_B=ids_1T.new_tensor([len(ids)]))
        if second:
            second_1S = ids_1T.new_tensor([list(second)])
            row = replace(row, second_ids_BS=second_1S, second_mask_BS=torch.ones_like(second_1S))
        return row, torch.arange(len(ids) - 1, device=self._base.device)

    def _pass(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None, learn: bool
    ) -> Sums:
        """The gradient of a step is that of  sum of its losses / number of its tokens or pairs,  however many
        micro-batches the step is cut into: each is divided by the count of all.
        """
        batches = list(self._batches(dataset, examples, reference_N))
        count = max(1, sum(self._objective.count(batch) for _, batch in batches))
        sums: dict[str, Tensor] = {}
        outputs: dict[int, Tensor] = {}
        with torch.no_grad():
            shared = self._objective.shared(self, (batch.to(self._base.device) for _, batch in batches))
        first_row = 0
        for rows, batch in batches:
            given = replace(batch.to(self._base.device), shared=shared, first_row=first_row)
            first_row += len(rows)
            loss = self._objective.loss(self, given)
            if learn:
                (loss.total / count).backward()  # type: ignore[no-untyped-call]
            elif loss.outputs is not None:
                outputs |= zip(rows, loss.outputs.cpu(), strict=True)
            for name, value in [(_LOSS, loss.total), *loss.sums.items()]:
                value = value.detach().double()  # as exact as a sum of Python floats, without a transfer
                sums[name] = sums[name] + value if name in sums else value
        in_order = [outputs[row] for row in sorted(outputs)]
        return Sums(list(sums)[1:], torch.stack(list(sums.values())), count, dataset.cost_tokens(examples), in_order)

    def _batches(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None
    ) -> Iterator[tuple[list[int], Batch]]:
        """The micro-batches, with their rows' numbers."""
        for rows in self._groups(dataset, examples):
            batch = collate(dataset, rows, self._base.pad_id)
            if isinstance(self._objective, HeadObjective):  # engines read a whole row before the head
                batch = replace(batch, prompt_lengths_B=batch.attention_mask_BT.sum(dim=1))
            yield rows, batch if reference_N is None else replace(batch, reference_B=reference_N[rows])

    def _groups(self, dataset: TokenizedDataset, examples: Sequence[int]) -> list[list[int]]:
        """The rows of each micro-batch. Rows of a packed example need not stay together; those of a pair do."""
        if self.packed:
            parts = dataset.rows_of(examples) if dataset.packed else examples
            sizes = [dataset.row_length(part) if dataset.packed else dataset.cost_tokens([part]) for part in parts]
            groups = plan.packed_micro_batches(parts, sizes, limit_tokens=self.limit_tokens)
            return groups if dataset.packed else [dataset.rows_of(group) for group in groups]
        if dataset.packed:
            rows = dataset.rows_of(examples)
            row_lengths = [dataset.row_length(row) for row in rows]
            return plan.micro_batches(rows, row_lengths, version=self.plan, limit_tokens=self.limit_tokens)
        lengths = [dataset.length(example) for example in examples]
        seconds = [dataset.second_length(example) for example in examples]
        groups = plan.micro_batches(
            examples, lengths, dataset.rows_per_example, second_lengths=seconds, version=self.plan,
            limit_tokens=self.limit_tokens,
        )  # fmt: skip
        return [dataset.rows_of(group) for group in groups]

    def token_losses(self, batch: Batch) -> TokenLosses:
        """See `Forward`."""
        if self.plan < plan.LABELS_ONLY or not (self.packed or self._plain):
            return losses_of_columns(self, batch)
        num_rows, width = batch.input_ids_BT.shape
        packed = self._packed(batch) if self.packed else None
        of_states, of_rows = [], []  # each trained position: where its state is; where it is in B times T
        for row, shape in enumerate(batch.row_shapes):
            of_states.append(shape.trained + (packed.place(row) if packed else row * width))
            of_rows.append(shape.trained + row * width)
        states_N, rows_N = (_on(self._base.device, places) for places in (of_states, of_rows))
        targets_N = batch.targets_BT.flatten()[rows_N]
        losses_N, right_N = self._losses(batch, packed, states_N, targets_N)
        losses_BT = losses_N.new_zeros(num_rows * width).index_copy(0, rows_N, losses_N).view(num_rows, width)
        return TokenLosses(losses_BT, None, right_N.sum())

    def _losses(
        self, batch: Batch, packed: Packed | None, states_N: Tensor, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """losses_N of the positions whose states are there, and whether the likeliest token is the target."""
        model = self.model
        if packed and not self._plain:
            with attending(model):
                logits_NV = model(
                    **packed.inputs.tensors, **arguments(packed.segments), use_cache=False, logits_to_keep=states_N
                ).logits[0]
            logits_NV = logits_NV.float()
            losses_N = cross_entropy(logits_NV, targets_N, reduction="none")
            return losses_N, logits_NV.detach().argmax(dim=-1) == targets_N
        states_SH = self._packed_states(packed, model) if packed else self.hidden(batch).flatten(0, 1)
        layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        assert isinstance(layer, nn.Linear), "tried when the base was loaded"
        return losses_and_right(layer, states_SH.index_select(0, states_N), targets_N)

    def logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        """See `Forward`. `keep_K` does not count the positions that the tuning puts before the tokens."""
        return self._packed_logits(batch, keep_K) if self.packed else self._padded_logits(batch, keep_K)

    def _padded_logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        return next_logits(self.model, self._inputs(batch), keep_K, _decoder_ids(batch))

    def _packed_logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        """A row's last token stands for the positions that it has not."""
        packed, model = self._packed(batch), self.model
        places = [packed.place(row) for row in range(len(batch.input_ids_BT))]
        begins_B1 = torch.tensor(places, device=self._base.device)[:, None]
        lasts_B1 = torch.tensor([shape.length - 1 for shape in batch.row_shapes], device=self._base.device)[:, None]
        keep_BK = begins_B1 + torch.minimum(keep_K, lasts_B1)
        with attending(model):
            logits_1SV: Tensor = model(
                **packed.inputs.tensors, **arguments(packed.segments), use_cache=False, logits_to_keep=keep_BK.flatten()
            ).logits
        return logits_1SV.view(*keep_BK.shape, -1)

    def hidden(self, batch: Batch) -> Tensor:
        """See `Forward`."""
        if not self.packed:
            return hidden_states(self.model, self._base.kind, self._inputs(batch))
        packed, (num_rows, width) = self._packed(batch), batch.input_ids_BT.shape
        states_SH = self._packed_states(packed, self.model)
        of_states, of_rows = [], []
        for row, shape in enumerate(batch.row_shapes):
            of_states.append(np.arange(shape.length) + packed.place(row))
            of_rows.append(np.arange(shape.length) + row * width)
        states_S, rows_S = (_on(self._base.device, places) for places in (of_states, of_rows))
        padded_SH = states_SH.new_zeros(num_rows * width, states_SH.shape[1])
        return padded_SH.index_copy(0, rows_S, states_SH.index_select(0, states_S)).view(num_rows, width, -1)

    def _packed(self, batch: Batch) -> Packed:
        assert batch.prompt_lengths_B is not None, "every file has them"
        num_before = self._tuning.num_virtual_tokens if self._tuned else 0
        segments = Segments(tuple(num_before + shape.length for shape in batch.row_shapes), self._base.device)
        begins_B = torch.tensor(segments.begins, device=self._base.device)
        chunk = Chunk(batch.input_ids_BT, batch.attention_mask_BT, batch.prompt_lengths_B, begins_B=begins_B)
        inputs = self._inputs_of(chunk)
        assert inputs.cache is None and inputs.num_before == num_before, "the method's settings say why not"
        tensors = segments.packed(inputs.tensors, num_before + batch.input_ids_BT.shape[1])
        return Packed(Inputs(tensors), segments, num_before)

    @staticmethod
    def _packed_states(packed: Packed, model: PreTrainedModel) -> Tensor:
        """states_SH: the input of the output layer, what the tuning puts before the rows included."""
        with attending(model):
            states_1SH: Tensor = model.base_model(
                **packed.inputs.tensors, **arguments(packed.segments), use_cache=False
            ).last_hidden_state
        return states_1SH[0]

    def values(self, ids: Sequence[int], head: Head, *, tuned: bool) -> list[float]:
        """What the head returns for one row, with the tuning or without it; dropout off. The row goes alone."""
        return (self if tuned else self.by_base())._values(ids, head)

    def _values(self, ids: Sequence[int], head: Head) -> list[float]:
        row, _ = self._alone(ids)
        with torch.no_grad():
            hidden_1TH = hidden_states(self.model, self._base.kind, self._inputs(row))
            values: list[float] = head.values(head.logits(hidden_1TH, row.attention_mask_BT))[0].tolist()
        return values

    def _inputs(self, batch: Batch) -> Inputs:
        return self._inputs_of(_chunk(batch))

    def _inputs_of(self, chunk: Chunk) -> Inputs:
        return self._tuning.inputs(chunk) if self._tuned else plain_inputs(chunk)


def _on(device: torch.device, places: Sequence[NDArray[np.int64]]) -> Tensor:
    return torch.from_numpy(np.concatenate(places)).to(device, non_blocking=True)


def _chunk(batch: Batch) -> Chunk:
    """What the base reads: of an encoder-decoder the second sequences, which are prompts as a whole."""
    if batch.second_ids_BS is not None:
        assert batch.second_mask_BS is not None, "they come together"
        return Chunk(batch.second_ids_BS, batch.second_mask_BS, batch.second_mask_BS.sum(dim=1))
    assert batch.prompt_lengths_B is not None, "every file has them"
    return Chunk(batch.input_ids_BT, batch.attention_mask_BT, batch.prompt_lengths_B)


def _decoder_ids(batch: Batch) -> Tensor | None:
    return None if batch.second_ids_BS is None else batch.input_ids_BT
