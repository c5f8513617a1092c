"""Methods of somebody's own, as docs/methods.md describes them: `methods` without tensors, `tensors` with."""
