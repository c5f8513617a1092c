"""What a job reports to its user, in OpenAI's order and wording (openai-api reference, fine-tuning events)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

Level = Literal["info", "warn", "error"]
Kind = Literal["message", "metrics"]


@dataclass(frozen=True)
class NewEvent:
    """An event to be written. `key` makes a replay harmless: one event of a job per key, later ones are dropped."""

    message: str
    level: Level = "info"
    type: Kind = "message"
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True)
class Event:
    """A written event; `sequence` counts a job's events from 1 without gaps."""

    id: str
    job_id: str
    sequence: int
    created_at: int
    level: Level
    type: Kind
    message: str
    data: Mapping[str, Any]


def created(job_id: str) -> NewEvent:
    return NewEvent(f"Created fine-tuning job: {job_id}", key="created")


def resolved_alias(alias: str, model: str) -> NewEvent:
    """What a job starts from, where its creation said a model alias."""
    message = f"The model alias '{alias}' stands for {model}: the job starts from it, also when the alias is moved"
    return NewEvent(message, data={"alias": alias, "model": model}, key="alias")


def validating(training_file: str, validation_file: str | None) -> NewEvent:
    also = f" and validation file: {validation_file}" if validation_file else ""
    return NewEvent(f"Validating training file: {training_file}{also}", key="validating")


def validated() -> NewEvent:
    return NewEvent("Files validated, moving job to queued state", key="validated")


def taken_over(check_id: str) -> NewEvent:
    message = f"Files were validated by check {check_id}, moving job to queued state"
    return NewEvent(message, data={"check": check_id}, key="validated")


def started() -> NewEvent:
    return NewEvent("Fine-tuning job started", key="started")


def step(metrics: Mapping[str, Any]) -> NewEvent:
    """`metrics` has OpenAI's names: step, total_steps, train_loss, valid_loss, full_valid_loss, ..."""
    parts = [f"training loss={metrics['train_loss']:.2f}"]
    if "valid_loss" in metrics:
        parts.append(f"validation loss={metrics['valid_loss']:.2f}")
    if "full_valid_loss" in metrics:
        parts.append(f"full validation loss={metrics['full_valid_loss']:.2f}")
    message = f"Step {metrics['step']}/{metrics['total_steps']}: {', '.join(parts)}"
    return NewEvent(message, type="metrics", data=dict(metrics), key=step_key(metrics["step"]))


def step_key(step_number: int) -> str:
    """The key of a step's metrics among the events of its job."""
    return f"step-{step_number}"


def checkpoint_created(step_number: int, model: str) -> NewEvent:
    message = f"Checkpoint created at step {step_number} with Snapshot ID: {model}"
    return NewEvent(message, data={"step": step_number, "model": model}, key=f"checkpoint-{step_number}")


def agrees(figures: Mapping[str, Any]) -> NewEvent:
    """The adapter's effect on the agreement rows is the same in an engine as in the trainer; in nats per token."""
    message = (
        "New fine-tuned model's log-probabilities agree with its training (the adapter moves them by "
        f"{figures['served_effect']:.4g} in the engine and by {figures['trained_effect']:.4g} in the trainer, "
        f"over {figures['tokens']} tokens)"
    )
    return NewEvent(message, data=figures, key="agreement")


def agrees_as_far_as_known(figures: Mapping[str, Any]) -> NewEvent:
    """Nothing contradicts the engine, but the effect is too small beside the rounding of both to be compared."""
    message = (
        "The engine serves the model, but its effect is too small to be compared with the training: "
        f"{figures['served_effect']:.2g} per token in the engine and {figures['trained_effect']:.2g} in the trainer, "
        f"where the base's own numbers differ by {figures['base_difference']:.2g}; more steps or a larger "
        "learning_rate_multiplier make a model that can be told from its base"
    )
    return NewEvent(message, level="warn", data=figures, key="agreement")


def imported_agrees(figures: Mapping[str, Any], *, decisive: bool) -> NewEvent:
    """The same of an adapter that was trained elsewhere: a worker has scored a fixed text with it, and without it."""
    effects = (
        f"it moves log-probabilities by {figures['served_effect']:.4g} in the engine and by "
        f"{figures['trained_effect']:.4g} in the worker that read it, over {figures['tokens']} tokens of a fixed text"
    )
    if decisive:
        return NewEvent(f"An engine computes the adapter as it should: {effects}", data=figures, key="agreement")
    message = f"The engine serves the adapter, but its effect is too small for the two to be compared: {effects}"
    return NewEvent(message, level="warn", data=figures, key="agreement")


def import_not_compared() -> NewEvent:
    return warning("The model is announced without asking an engine about it: none is configured", key="not-compared")


def waiting_for_engine() -> NewEvent:
    message = "The model is trained and stored; it waits for an engine that can answer before it is announced"
    return warning(message, key="waiting-for-engine")


def date_in_prompt(day: date) -> NewEvent:
    message = (
        f"The base's chat template prints today's date: the model is trained with {day.isoformat()}, and its engine "
        "shows it the date of each request; write the date into a system message where it matters"
    )
    return NewEvent(message, level="warn", data={"date": day.isoformat()}, key="date-in-prompt")


def not_compared() -> NewEvent:
    message = "The model is announced without asking an engine whether it agrees with the training: none is configured"
    return warning(message, key="not-compared")


def implausible_rate(rate: float, usual: float, multiplier: float) -> NewEvent:
    """The learning rate that a job trains with, far from the base's for the tuning."""
    what = "small: the model may answer as its base does" if rate < usual else "large: the training may diverge"
    message = (
        f"The learning rate will be {rate:.2g}, where {usual:.2g} is usual for this base and tuning. That is very "
        f"{what}. learning_rate_multiplier ({multiplier:g}) multiplies the usual rate, it is not a rate itself: try 1"
    )
    data = {"learning_rate": rate, "usual_learning_rate": usual, "learning_rate_multiplier": multiplier}
    return NewEvent(message, level="warn", data=data, key="implausible-rate")


def head_agrees(figures: Mapping[str, float], *, decisive: bool) -> NewEvent:
    """`difference` and `effect` of `figures` are in units of what is tolerated."""
    message = (
        f"An engine computes the model as it was trained: over {figures['rows']} texts its outputs differ by at most "
        f"{figures['difference']:.2g} of what is tolerated"
    )
    unknown = "; the tuning changes them by less than would show, so that the head alone is known to be served"
    return NewEvent(message + ("" if decisive else unknown), data=dict(figures), key="agreement")


def loss_rose(start: float, end: float, num_steps: int) -> NewEvent:
    message = (
        f"The training loss ended above its start: {end:.3f} after {num_steps} steps, from {start:.3f}. Try a smaller "
        "learning_rate_multiplier, a larger batch_size, or look for examples that contradict each other"
    )
    data = {"loss_at_start": start, "loss_at_end": end, "steps": num_steps}
    return NewEvent(message, level="warn", data=data, key="learning")


def learnt_little(start: float, end: float, accuracy: float | None, num_steps: int) -> NewEvent:
    """`accuracy` is the share of right tokens at the end; None where the objective has no right tokens."""
    tokens = "" if accuracy is None else f", and {accuracy:.0%} of the tokens are right"
    message = (
        f"The training has learnt little: its loss went from {start:.3f} to {end:.3f} in {num_steps} steps{tokens}. "
        "Try more epochs, a smaller batch_size (more steps), or a larger learning_rate_multiplier"
    )
    data = {"loss_at_start": start, "loss_at_end": end, "token_accuracy": accuracy, "steps": num_steps}
    return NewEvent(message, level="warn", data=data, key="learning")


def chosen(figures: Mapping[str, Any]) -> list[NewEvent]:
    """What the safeguards decided at a job's end: an early end, and the step that is published."""
    metric, best_step, best = figures["metric"], figures["best_step"], figures["best_value"]
    found = []
    if figures["stopped"]:
        message = (
            f"Training stopped early at step {figures['ended_step']} of {figures['total_steps']}: {metric} has not "
            f"improved by more than {figures['min_delta']:g} in the last {figures['without_improvement']} evaluations "
            f"(best {best:.4g} at step {best_step}, last {figures['last_value']:.4g})"
        )
        found.append(NewEvent(message, data=figures, key="stopped-early"))
    if figures["selection"] is not None:
        reason = (
            f"the best of {figures['evaluations']} by {metric}, {best:.4g}"
            if figures["selection"] == "best"
            else f"the last; the best by {metric} was step {best_step}, {best:.4g}"
        )
        message = f"The model is that of step {figures['step']}: {reason}"
        found.append(NewEvent(message, data=figures, key="chosen-step"))
    return found


LITTLE_FORGOTTEN, MUCH_FORGOTTEN = 0.02, 0.25  # shares of a token's likelihood


def forgetting(tokens: int, before: float, after: float) -> NewEvent:
    """What the training did to a general text, from its losses in nats per token.

    Each token's likelihood is in the geometric mean exp(before - after) times what it was.
    """
    change = math.expm1(before - after)
    figures = f"its loss went from {before:.3f} to {after:.3f}, over {tokens} tokens"
    level: Level = "info"
    if abs(change) <= LITTLE_FORGOTTEN:
        message = (
            f"The model has forgotten little: general text is as likely as before within 2 % per token ({figures})"
        )
    elif change > 0:
        message = f"The model has forgotten nothing: general text became {change:.0%} more likely per token ({figures})"
    elif change >= -MUCH_FORGOTTEN:
        message = (
            f"The model has forgotten something: general text became {-change:.0%} less likely per token ({figures}); "
            "that is usual for a narrow task, and matters where the model is used for other things too"
        )
    else:
        level = "warn"
        message = (
            f"The model has forgotten much: general text became {-change:.0%} less likely per token ({figures}). Where "
            "it is used for other things too, try a smaller learning_rate_multiplier, fewer epochs, or add rows of "
            "other kinds"
        )
    data = {"tokens": tokens, "loss_before": before, "loss_after": after, "likelihood_change": change}
    return NewEvent(message, level=level, data=data, key="forgetting")


def converted(figures: Mapping[str, Any]) -> NewEvent:
    """What it costs to serve the model in another form, measured on the agreement rows."""
    what = f"The model is served as a LoRA of rank {figures['rank']}"
    if figures["share"] == 1:
        message = f"{what}, which computes what was trained"
    else:
        message = f"{what}, which keeps {figures['share']:.2%} of the squared norm of what the training changed"
    measured = (
        f": over {figures['outputs']} outputs it differs from the trained model by {figures['difference']:.2g} in the "
        f"mean, where the training itself changes them by {figures['effect']:.2g}"
    )
    changed = figures["changed"]
    sampled = "" if changed is None else f"; {changed:.2%} of the tokens that are sampled would be others"
    return NewEvent(message + measured + sampled, data=figures, key="conversion")


def too_lossy(figures: Mapping[str, Any]) -> str:
    """Why a model is not served in the form that its job asked for."""
    return (
        f"A LoRA of rank {figures['rank']} keeps {figures['share']:.2%} of the squared norm of what the training "
        f"changed, less than the job's serve_min_share of {figures['min_share']:.2%}. Give a higher serve_rank, a "
        "tuning of a lower rank, or a smaller serve_min_share"
    )


def checkpoint_left_out(step_number: int, figures: Mapping[str, Any]) -> NewEvent:
    message = f"The checkpoint of step {step_number} is not published. {too_lossy(figures)}"
    return NewEvent(message, level="warn", data=figures, key=f"conversion-{step_number}")


def early_stopping_idle(patience: int, n_epochs: int) -> NewEvent:
    message = (
        f"early_stopping cannot end this job early: it is evaluated after each of its {n_epochs} epochs, and a "
        f"patience of {patience} needs at least {patience + 2}. Give a larger n_epochs or a smaller patience"
    )
    data = {"patience": patience, "n_epochs": n_epochs}
    return NewEvent(message, level="warn", data=data, key="early-stopping-idle")


def model_created(model: str) -> NewEvent:
    return NewEvent(f"New fine-tuned model created: {model}", key="model")


def succeeded() -> NewEvent:
    return NewEvent("The job has successfully completed", key="succeeded")


def failed(message: str, data: Mapping[str, Any]) -> NewEvent:
    return NewEvent(message, level="error", data=data, key="failed")


def cancelled() -> NewEvent:
    return NewEvent("The job was cancelled", key="cancelled")


def pausing() -> NewEvent:
    return NewEvent("The job will be paused after its next step")


def paused(step_number: int) -> NewEvent:
    return NewEvent(f"The job was paused at step {step_number}", data={"step": step_number})


def resumed() -> NewEvent:
    return NewEvent("The job was resumed")


def warning(message: str, key: str) -> NewEvent:
    return NewEvent(message, level="warn", key=key)


def webhook_given_up(endpoint_id: str, name: str, event_type: str, *, disabled: bool) -> NewEvent:
    """A webhook endpoint has not taken an event for three days, or wants no more."""
    consequence = (
        "the endpoint is disabled: correct it, and send it an update with the status 'enabled'"
        if disabled
        else "the endpoint took others meanwhile and stays enabled"
    )
    message = f"The webhook endpoint '{name}' ({endpoint_id}) has not taken {event_type}; {consequence}"
    data = {"webhook_endpoint": endpoint_id, "type": event_type, "disabled": disabled}
    return NewEvent(message, level="warn", data=data, key=f"webhook-{endpoint_id}-{event_type}"[:64])


def storage_unavailable() -> NewEvent:
    message = "The storage is unavailable: training continues, but would be repeated in part if its worker failed now"
    return warning(message, key="storage-unavailable")


def resumed_elsewhere(step_number: int, difference: str) -> NewEvent:
    message = f"Resumed from step {step_number} in another environment, not bit-exact: {difference}"
    return NewEvent(message, level="warn", key=f"resumed-{step_number}")
