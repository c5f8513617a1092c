"""The safeguards of one job in its slot: its evaluations, the weights of the best one, and what it forgets.

A job that asks for none has one of these too, which holds nothing and changes nothing. What is decided is in
`decision`.

What a job forgets is the loss of the general text under its model, before its training and after it. A tuned model that
says less of what its base said is not found by the job's own validation file, which is about the task. The text is
fixed (`workers.data.general_text`), so the figures of different jobs of a base can be compared.
Shapes: K places of a piece, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from service.recipes.safeguards import Safeguards
from workers.data.base_text import BaseText
from workers.data.general_text import general_ids
from workers.trainer.process.decision import Evaluation, best, ends_early, without_improvement
from workers.trainer.protocol import Chosen, Forgetting

BEST = "best/"  # before the names of the parameters, in a snapshot


class Guard:
    """Watches over the `parameters` of one job, which it changes in `choose` only."""

    def __init__(self, safeguards: Safeguards, parameters: Mapping[str, Tensor]) -> None:
        self._safeguards = safeguards
        self._parameters = parameters
        self._best: dict[str, Tensor] = {}  # empty while the best weights are those of no step but the current one
        self.evaluations: list[Evaluation] = []
        self.general_loss_before: float | None = None

    @property
    def ends_early(self) -> bool:
        """Whether the job is over before its last step."""
        return ends_early(self.evaluations, self._safeguards)

    @property
    def measures_text(self) -> bool:
        """Whether the general text has to be measured before the first step."""
        return self._safeguards.forgetting_report and self.general_loss_before is None

    def evaluated(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Takes the metrics at the end of an epoch, with the weights as they are now."""
        if not self._safeguards.measures:
            return
        self.evaluations.append(Evaluation(step=step, metrics=dict(metrics)))
        if self._safeguards.best_is_published and best(self.evaluations, self._safeguards.metric).step == step:
            self._best = {name: tensor.detach().clone() for name, tensor in self._parameters.items()}

    def chosen(self, step: int, total_steps: int) -> Chosen | None:
        """What was decided at the job's end, at `step`; None for a job that asked for no decision."""
        rule = self._safeguards.early_stopping
        if not self.evaluations:
            return None
        metric = self._safeguards.metric
        first = best(self.evaluations, metric)
        return Chosen(
            step=first.step if self._safeguards.best_is_published else step,
            ended_step=step,
            total_steps=total_steps,
            metric=metric,
            best_step=first.step,
            best_value=first.value(metric),
            last_value=self.evaluations[-1].value(metric),
            evaluations=len(self.evaluations),
            without_improvement=0 if rule is None else without_improvement(self.evaluations, rule),
            min_delta=0.0 if rule is None else rule.min_delta,
            selection=self._safeguards.checkpoint_selection,
            stopped=self.ends_early and step < total_steps,
        )

    def choose(self) -> Evaluation:
        """Puts the weights of the best evaluation into the parameters; returns that one."""
        with torch.no_grad():
            for name, tensor in self._best.items():
                self._parameters[name].copy_(tensor)
        return best(self.evaluations, self._safeguards.metric)

    def forgetting(self, tokens: int, loss_after: float) -> Forgetting:
        """The report, once the general text has been measured again."""
        assert self.general_loss_before is not None, "measured before the first step"
        return Forgetting(tokens=tokens, loss_before=self.general_loss_before, loss_after=loss_after)

    def state(self) -> dict[str, Tensor]:
        """The tensors, for a snapshot."""
        return {BEST + name: tensor for name, tensor in self._best.items()}

    def restore(
        self, evaluations: Sequence[Evaluation], general_loss_before: float | None, tensors: Mapping[str, Tensor]
    ) -> None:
        """Continues from a snapshot; `tensors` may hold other names too."""
        self.evaluations = list(evaluations)
        self.general_loss_before = general_loss_before
        self._best = {
            name: tensors[BEST + name].to(parameter.device)
            for name, parameter in self._parameters.items()
            if BEST + name in tensors
        }


class GeneralText:
    """The general text as a base's tokens, made when first needed; `limit_tokens` of one piece fit its context."""

    def __init__(self, text: BaseText, limit_tokens: int) -> None:
        self._text = text
        self._limit_tokens = limit_tokens

    @cached_property
    def _pieces(self) -> list[list[int]]:
        return general_ids(self._text, self._limit_tokens)

    @property
    def num_tokens(self) -> int:
        """Those that are predicted: all but the first of each piece."""
        return sum(len(ids) - 1 for ids in self._pieces)

    def loss(self, next_logprobs: Callable[[Sequence[int]], Tensor]) -> float:
        """-1/n sum log p(token | tokens before it in its piece), in nats; `next_logprobs` gives logprobs_KV."""
        total = 0.0
        for ids in self._pieces:
            logprobs_KV = next_logprobs(ids)
            next_K1 = torch.tensor(ids[1:], device=logprobs_KV.device)[:, None]
            total += float(logprobs_KV.gather(1, next_K1).double().sum())
        return -total / self.num_tokens
