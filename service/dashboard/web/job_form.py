"""The form of a new job: its fields from the registries of methods, and what was filled in as a request's body.

A setting that has its default is left out of the body. Whether the body is right is for the API to say: what cannot be
read as a number is passed on as it was written, so that its message names it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pprint import pformat
from textwrap import indent
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.api.schemas.jobs import CreateJob
from service.api.web.bodies import PLAIN, check_structure
from service.api.web.errors import worded
from service.domain.check import Check
from service.domain.errors import InvalidRequest
from service.domain.job import Job
from service.domain.json import JsonObject
from service.recipes.json_lines import read_object
from service.recipes.objective import OBJECTIVES, hyperparameters_type
from service.recipes.safeguards import Safeguards, safeguards_of
from service.recipes.tuning import TUNINGS

Kind = Literal["text", "number", "choice", "switch", "names", "json"]
ORIGIN = ("model", "training_file", "validation_file", "suffix")
OF_METHOD, OF_TUNING = "method.", "tuning."
ANY_LINE = 2  # of a file; the first may begin with a byte-order mark
SHOWN_FIRST = ("n_epochs", "batch_size", "learning_rate_multiplier")


@dataclass(frozen=True)
class FormField:
    """One setting: its input, what it is by default, and what it may be."""

    name: str  # of the input
    label: str
    about: str
    kind: Kind
    default: Any
    value: str
    choices: Sequence[str] = ()
    range: str = ""

    @property
    def hint(self) -> str:
        """Its description, and its range."""
        about = self.about.replace("`", "")
        return " ".join(f"{text[:1].upper()}{text[1:]}." for text in (about, self.range) if text)


def method_fields(objective: str, given: Mapping[str, str]) -> list[FormField]:
    """The hyperparameters of an objective: those of every loop first."""
    found = OBJECTIVES.find(objective) or OBJECTIVES.default
    fields = _fields(hyperparameters_type(found), OF_METHOD, given)
    rank = {name: place for place, name in enumerate(SHOWN_FIRST)}
    return sorted(fields, key=lambda field: rank.get(field.label, len(rank)))


def tuning_fields(tuning: str, given: Mapping[str, str]) -> list[FormField]:
    """The settings of a tuning."""
    return _fields(TUNINGS.find(tuning) or TUNINGS.default, OF_TUNING, given)


def body_of(form: Mapping[str, str]) -> JsonObject:
    """The body of `POST /v1/fine_tuning/jobs` that the form stands for."""
    body: JsonObject = {name: form[name].strip() for name in ORIGIN if form.get(name, "").strip()}
    if form.get("seed", "").strip():
        body["seed"] = _number(form["seed"])
    objective, tuning = form.get("objective", ""), form.get("tuning", "")
    if objective:
        settings = _given(method_fields(objective, {}), form)
        if settings or objective != OBJECTIVES.default.name:
            body["method"] = {"type": objective} | ({objective: {"hyperparameters": settings}} if settings else {})
    if tuning:
        settings = _given(tuning_fields(tuning, {}), form)
        if settings or tuning != TUNINGS.default.name:
            body["tuning"] = {"type": tuning} | ({tuning: settings} if settings else {})
    if served := _served_form(form):
        body["tuning"] = {"type": tuning or TUNINGS.default.name, **body.get("tuning", {}), **served}
    return body | _safeguards(form)


def checked(body: JsonObject) -> CreateJob:
    """The typed body. Raises InvalidRequest, in the API's words."""
    try:
        return CreateJob.model_validate(body)
    except ValidationError as error:
        findings = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
        raise worded(RequestValidationError(findings, body=body)) from error


def filled_from(job: Job | Check) -> dict[str, str]:
    """The form of a job that is to be created again, or that was checked."""
    form = {
        "model": job.parent_model or job.alias or job.base,
        "training_file": job.training_file,
        "validation_file": job.validation_file or "",
        "objective": job.objective,
        "tuning": str(job.tuning["type"]),
    }
    if isinstance(job, Job):
        form |= {"suffix": job.suffix or "", "seed": str(job.seed)}
    form |= {f"{OF_METHOD}{name}": _shown(value) for name, value in job.hyperparameters.items()}
    settings: JsonObject = job.tuning.get(job.tuning["type"], {})
    form |= {f"{OF_TUNING}{name}": _shown(value) for name, value in settings.items()}
    form |= {f"{OF_TUNING}{name}": _shown(job.tuning[name]) for name in SERVED_FORM if name in job.tuning}
    return form | _guards(safeguards_of(job.safeguards))


def _guards(safeguards: Safeguards) -> dict[str, str]:
    form = {}
    if safeguards.early_stopping is not None:
        form["patience"] = str(safeguards.early_stopping.patience)
    if safeguards.best_is_published:
        form["checkpoint_selection"] = "best"
    return form | ({"forgetting_report": "on"} if safeguards.forgetting_report else {})


def input_of(param: str | None) -> str | None:
    """The input that an error's `param` is about."""
    if param is None:
        return None
    match re.split(r"[.\[]", param):
        case ["method", _, "hyperparameters", name, *_]:
            return f"{OF_METHOD}{name}"
        case ["method", *_]:
            return "objective"
        case ["tuning", name] if name in SERVED_FORM:
            return f"{OF_TUNING}{name}"
        case ["tuning", _, name, *_]:
            return f"{OF_TUNING}{name}"
        case ["tuning", *_]:
            return "tuning"
        case [name, *_]:
            return name
    return None


def as_curl(body: JsonObject, base_url: str) -> str:
    """The request as a command to paste."""
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl {base_url}/fine_tuning/jobs \\\n"
        '  -H "Authorization: Bearer $LUTHIER_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{text}'"
    )


def as_python(body: JsonObject, base_url: str) -> str:
    """The request by the official SDK; fields that it does not know go into `extra_body`."""
    own = {name: value for name, value in body.items() if name in OWN_FIELDS}
    known = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    lines = [_argument(name, value) for name, value in known.items()]
    if own:
        lines.append(_argument("extra_body", own))
    call = "\n".join(lines)
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key=os.environ["LUTHIER_API_KEY"])\n'
        f"job = client.fine_tuning.jobs.create(\n{call}\n)\nprint(job.id)"
    )


def _argument(name: str, value: Any) -> str:
    shown = f"{name}={pformat(value, width=64, sort_dicts=False)},"
    return indent(shown.replace("\n", f"\n{' ' * (len(name) + 1)}"), "    ")


OWN_FIELDS = ("tuning", "early_stopping", "checkpoint_selection", "forgetting_report")  # Luthier's, not OpenAI's


SERVED_FORM = ("serve_rank", "serve_min_share")  # the first alone asks for a LoRA


def _served_form(form: Mapping[str, str]) -> JsonObject:
    given = {name: form.get(f"{OF_TUNING}{name}", "").strip() for name in SERVED_FORM}
    return {name: _number(text) for name, text in given.items() if text}


def _safeguards(form: Mapping[str, str]) -> JsonObject:
    found: JsonObject = {}
    if form.get("patience", "").strip():
        found["early_stopping"] = {"patience": _number(form["patience"])}
    if form.get("checkpoint_selection") == "best":
        found["checkpoint_selection"] = "best"
    if form.get("forgetting_report"):
        found["forgetting_report"] = True
    return found


def _fields(model: type[BaseModel], prefix: str, given: Mapping[str, str]) -> list[FormField]:
    properties: JsonObject = model.model_json_schema()["properties"]
    return [
        _field(f"{prefix}{name}", name, properties[name], field.default, field.description or "", given)
        for name, field in model.model_fields.items()
    ]


def _field(name: str, label: str, schema: JsonObject, default: Any, about: str, given: Mapping[str, str]) -> FormField:
    value = given.get(name, _shown(default))
    options: list[JsonObject] = schema.get("anyOf", [schema])
    types = {option.get("type") for option in options}
    if types == {"boolean"}:
        return FormField(name, label, about, "switch", default, value)
    if any("enum" in option for option in options):
        return FormField(name, label, about, "choice", default, value, choices=_choices(options))
    if "array" in types:
        return FormField(name, label, about, "names", default, value)
    numbers = [option for option in options if option.get("type") in ("integer", "number")]
    if numbers:
        kind: Kind = "number" if len(options) == 1 else "text"
        return FormField(name, label, about, kind, default, value, range=_range(numbers[0]))
    return FormField(name, label, about, "text" if types <= {"string", "null"} else "json", default, value)


def _range(schema: JsonObject) -> str:
    words = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return " ".join(f"{word} {schema[name]:g}" for name, word in words if name in schema)


def _choices(options: Sequence[JsonObject]) -> list[str]:
    return [str(choice) for option in options for choice in option.get("enum", [option.get("const", "")])]


def _given(fields: Sequence[FormField], form: Mapping[str, str]) -> JsonObject:
    """What differs from the defaults."""
    found: JsonObject = {}
    for field in fields:
        if field.kind == "switch":
            value: Any = form.get(field.name, "") not in ("", "false")
        else:
            text = form.get(field.name, "").strip()
            value = field.default if text in ("", _shown(field.default)) else _read(field, text)
        if value != field.default:
            found[field.label] = value
    return found


def _read(field: FormField, text: str) -> Any:
    match field.kind:
        case "names":
            return [name for name in text.replace(",", " ").split() if name]
        case "json":
            return _object(text)
        case "choice":
            return text
        case _:
            return _number(text)


def _object(text: str) -> JsonObject | str:
    """The object, if a body may hold it. Read as a line of a training file is: what is no JSON stays text."""
    content = text.encode("utf-8", "replace")
    found = read_object(content, ANY_LINE)
    if isinstance(found, str):
        return text
    try:
        check_structure(content, PLAIN)
        json.dumps(found[1], allow_nan=False)
    except (InvalidRequest, ValueError):
        return text
    return found[1]


def _number(text: str) -> int | float | str:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text  # JSON has no other numbers


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)
