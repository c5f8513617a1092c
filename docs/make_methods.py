"""Writes the tables of docs/methods.md from the registries: `python -m docs.make_methods [PATH]`.

What stands between two marks (`<!-- made: NAME -->` and `<!-- end -->`) is rewritten from `service.recipes`, methods of
`LUTHIER_EXTENSIONS` included; the rest of the page is kept. A test holds the page current.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from service.recipes.base import EngineKind
from service.recipes.format import FORMATS, Format
from service.recipes.objective import AUTO, OBJECTIVES, Hyperparameters, ObjectiveSettings
from service.recipes.recipe import goes_with
from service.recipes.safeguards import EarlyStopping
from service.recipes.tasks import TASKS, BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings

PAGE = Path(__file__).resolve().parent / "methods.md"
MEASURED = PAGE.parents[1] / "benchmarks" / "tunings.txt"
_MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SIZES = (576, 1024, 2048, 4096, 8192)  # hidden sizes for which the default learning rates are shown


def main() -> None:
    """Writes the page, here or to the path of the first argument."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """The page with everything between marks rewritten."""
    return _MADE.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", page)


def _paragraph(method: type[object]) -> str:
    return inspect.cleandoc(method.__doc__ or "")


def _objectives() -> str:
    return "\n".join(map(_objective, OBJECTIVES))


def _objective(objective: type[ObjectiveSettings]) -> str:
    metrics = ", ".join(f"`train_{name}`" for name in ("loss", *objective.metrics))
    reads = " or ".join(f"`{format.name}`" for format in objective.formats)
    return (
        f"### `{objective.name}`\n\n{_paragraph(objective)}\n\n"
        f"Reads rows of the format {reads}. Metrics: {metrics}, and the same of the validation file with `valid_`. "
        f"{_padded(objective)}".rstrip()
        + "\n\n"
        + (
            _settings("hyperparameter", objective)
            if objective.model_fields
            else "It has no hyperparameters of its own.\n"
        )
    )


def _hyperparameters() -> str:
    return _settings("hyperparameter", Hyperparameters)


def _early_stopping() -> str:
    return _settings("setting of `early_stopping`", EarlyStopping)


def _auto() -> str:
    rules = dict(AUTO)
    for objective in OBJECTIVES:
        rules |= {f"{name}` of `{objective.name}": rule for name, rule in objective.auto.items()}
    return "| hyperparameter | rule |\n|---|---|\n" + "".join(
        f"| `{name}` | {rule.text} |\n" for name, rule in rules.items()
    )


def _tunings() -> str:
    return "\n".join(map(_tuning, TUNINGS))


def _tuning(tuning: type[TuningSettings]) -> str:
    engines = " and ".join(f"`{engine}`" for engine in sorted(tuning.engines))
    changeable = ", ".join(f"`{name}`" for name in sorted(tuning.changeable))
    continued = f"A job that continues a model may give another {changeable}. " if changeable else ""
    served = f"Engines: {engines}{_converted(tuning)}. {continued}{_padded(tuning)}{_rates(tuning)}"
    return f"### `{tuning.name}`\n\n{_paragraph(tuning)}\n\n{served}\n\n" + (
        _settings("setting", tuning) if tuning.model_fields else "It has no settings.\n"
    )


def _padded(method: type[TuningSettings] | type[ObjectiveSettings]) -> str:
    because = method.unpacked_because
    return f"A step's rows are padded and not packed: {because}. " if because else ""


_FORMS: Mapping[LoraForm, str] = {
    "exact": "by conversion, exactly",
    "truncated": "by conversion, as far as its rank allows",
    "none": "no",
}


def _converted(tuning: type[TuningSettings]) -> str:
    """Whether other engines serve it as a LoRA."""
    if tuning.lora_form == "none":
        return f"; not as a LoRA, for {tuning.no_lora_form}"
    if "vllm" in tuning.engines:
        return ""
    return f", and with `serve_as: lora` `vllm` ({_FORMS[tuning.lora_form]})"


def _rates(tuning: type[TuningSettings]) -> str:
    rates = [f"{tuning.default_learning_rate(BaseSize(size, num_layers=32)):.2g}" for size in _SIZES]
    source = " ".join((inspect.getdoc(tuning.default_learning_rate) or "").split())
    if len(set(rates)) == 1:
        return f"Default learning rate: {rates[0]}. {source}".rstrip()
    shown = ", ".join(f"{rate} at {size}" for rate, size in zip(rates, _SIZES, strict=True))
    return f"Default learning rate, by the base's hidden size: {shown}. {source}".rstrip()


def _measured() -> str:
    """What `benchmarks/tunings.py` printed, as it stands."""
    return f"```text\n{MEASURED.read_text(encoding='utf-8')}```\n"


def _formats() -> str:
    return "".join(
        f"- **`{format.name}`** ({format.rows}). {_one_line(format)} {_read_by(format)}\n" for format in FORMATS
    )


def _read_by(format: type[Format]) -> str:
    return f"Read by {', '.join(f'`{objective.name}`' for objective in OBJECTIVES if format in objective.formats)}."


def _one_line(method: type[object]) -> str:
    return " ".join(_paragraph(method).split())


def _tasks() -> str:
    return "".join(
        f"- `{task.name}`: {task.about}; called at {' and '.join(f'`{path}`' for path in task.endpoints)}.\n"
        for task in TASKS.values()
    )


def _compatibility() -> str:
    """Every pair that goes together, with the engines that serve it."""
    engines = get_args(EngineKind)
    head = "| tuning | objective | base | " + " | ".join(engines) + " |\n" + "|---" * (3 + len(engines)) + "|\n"
    return head + "".join(_rows(engines))


def _rows(engines: tuple[EngineKind, ...]) -> Iterator[str]:
    for tuning in TUNINGS:
        for objective in (one for one in OBJECTIVES if goes_with(one, tuning)):
            for kind in sorted(tuning.kinds & objective.kinds):
                served = " | ".join(_served(engine, tuning, objective, kind) for engine in engines)
                yield f"| `{tuning.name}` | `{objective.name}` | {kind} | {served} |\n"


def _served(
    engine: EngineKind, tuning: type[TuningSettings], objective: type[ObjectiveSettings], kind: BaseKind
) -> str:
    embedded_only = TASKS[objective.task].has_head or kind != "causal"
    if embedded_only and engine != "embedded":
        return "no"
    return "yes" if engine in tuning.engines else _FORMS[tuning.lora_form]


def _settings(noun: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema()["properties"]
    return f"| {noun} | default | values | meaning |\n|---|---|---|---|\n" + "".join(
        f"| `{name}` | `{_default(field.default)}` | {_values(schema[name])} | {field.description} |\n"
        for name, field in model.model_fields.items()
    )


def _default(value: object) -> str:
    return str(value) or '""'


def _values(schema: Mapping[str, Any]) -> str:
    """What a setting may be, from its JSON schema."""
    if "anyOf" in schema:
        return ", or ".join(_values(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        noun = "numbers" if schema["items"]["type"] == "integer" else "names"
        return f"{schema.get('minItems', 0)} to {schema['maxItems']} {noun}"
    if schema["type"] == "string" and "examples" in schema:
        return f"a text such as `{schema['examples'][0]}`"
    if schema["type"] == "object":
        return f"0 to {schema['maxProperties']} names, each with {_values(schema['additionalProperties'])}"
    if schema["type"] in ("integer", "number"):
        return _range(schema)
    if schema["type"] == "string" and "enum" not in schema:
        return "a name"
    return str(schema["type"])


def _range(schema: Mapping[str, Any]) -> str:
    low = {"minimum": "{:g}", "exclusiveMinimum": "above {:g}"}
    high = {"maximum": "{:g}", "exclusiveMaximum": "below {:g}"}
    if "minimum" in schema and not high.keys() & schema.keys():
        return f"{schema['minimum']:g} or more"
    ends = [text.format(schema[key]) for side in (low, high) for key, text in side.items() if key in schema]
    return " to ".join(ends) if ends else "any number"


PARTS: Mapping[str, Callable[[], str]] = {
    "objectives": _objectives,
    "hyperparameters": _hyperparameters,
    "auto": _auto,
    "early_stopping": _early_stopping,
    "tunings": _tunings,
    "measured": _measured,
    "formats": _formats,
    "tasks": _tasks,
    "compatibility": _compatibility,
}

if __name__ == "__main__":
    main()
