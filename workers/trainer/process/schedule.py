"""The learning rate over a job's steps: a linear warm-up, then linearly towards zero."""

WARMUP = 0.05  # of all steps, at least one


def learning_rate_factor(step: int, total_steps: int) -> float:
    """What the job's learning rate is multiplied with at `step` (1 to `total_steps`); in (0, 1].

    With w warm-up steps and n steps:  s / w  for s <= w,  (n + 1 - s) / (n + 1 - w)  after.
    It is 1 at step w and would be 0 one step after the last, so that no step is wasted on a zero.
    """
    warmup_steps = max(1, round(WARMUP * total_steps))
    if step <= warmup_steps:
        return step / warmup_steps
    return (total_steps + 1 - step) / (total_steps + 1 - warmup_steps)
