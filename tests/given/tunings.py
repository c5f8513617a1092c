"""Every tuning that is registered, small enough for tiny bases. One that is not named here joins with its defaults."""

from typing import Any

from service.recipes.tuning import TUNINGS

Spec = dict[str, Any]  # as a row of the database has it: {"type": t, t: settings}

_LORA: dict[str, Any] = {"r": 4, "alpha": 16, "dropout": 0.1}
_SETTINGS: dict[str, dict[str, Any]] = {
    "lora": _LORA,
    "miss": {"r": 8, "dropout": 0.1},
    "prefix": {"num_virtual_tokens": 20},
    "prompt": {"num_virtual_tokens": 20},
    "vera": {"r": 8, "dropout": 0.1},
}
# Settings that change how a tuning computes or begins, each with a name of its own.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("lora", _LORA | {"use_dora": True}),
    "rslora": ("lora", _LORA | {"use_rslora": True}),
    "pissa": ("lora", _LORA | {"init": "pissa"}),
}
ELSEWHERE = frozenset({"prompt", "prefix"})  # before the first step they change what the base answers, by design
NEAR = {"pissa": 1e-5}  # how far the others may be from the base's logits before the first step, where it is not 0


def spec(name: str, **settings: Any) -> Spec:
    """A tuning of that name with these settings."""
    return {"type": name, name: settings}


KINDS: dict[str, Spec] = {
    **{name: spec(name, **_SETTINGS.get(name, {})) for name in TUNINGS.names},
    **{kind: spec(name, **settings) for kind, (name, settings) in _VARIANTS.items()},
}
