"""What the formats of CI say of themselves, as far as reports use them: SARIF as a JSON Schema, JUnit as its elements.

SARIF 2.1.0 (OASIS, 2020): sections 3.13 sarifLog, 3.14 run, 3.18 tool, 3.19 toolComponent, 3.27 result, 3.29
physicalLocation, 3.30 region, 3.49 reportingDescriptor. A property that is not listed would be a bug.
JUnit has no specification; the elements and attributes are those that Jenkins' xUnit plugin takes (junit-10.xsd).
"""

import json
from collections.abc import Mapping
from xml.etree import ElementTree

import jsonschema

Schema = dict[str, object]


def _object(properties: Mapping[str, object], *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: Schema, minimum: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": minimum}


STRING: Schema = {"type": "string"}
MESSAGE = _object({"text": {"type": "string", "minLength": 1}}, "text")
REGION = _object({"startLine": {"type": "integer", "minimum": 1}}, "startLine")
ARTIFACT = _object({"uri": {"type": "string", "pattern": r"^[A-Za-z0-9:/?#@!$&'()*+,;=._~%-]+$"}}, "uri")  # RFC 3986
PHYSICAL = _object({"artifactLocation": ARTIFACT, "region": REGION}, "artifactLocation")
RESULT = _object(
    {
        "ruleId": STRING,
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": MESSAGE,
        "locations": _list(_object({"physicalLocation": PHYSICAL}, "physicalLocation"), 1),
    },
    *("ruleId", "message", "locations"),
)
RULES = _list(_object({"id": STRING}, "id")) | {"uniqueItems": True}
DRIVER = _object({"name": STRING, "version": STRING, "rules": RULES}, "name")
RUN = _object({"tool": _object({"driver": DRIVER}, "driver"), "results": _list(RESULT)}, "tool", "results")
SARIF = _object(
    {"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": _list(RUN, 1)},
    *("version", "runs"),
)

COUNTS = {"tests", "failures", "errors"}
JUNIT: Mapping[str, tuple[set[str], set[str], set[str]]] = {  # attributes it must have, may have, and its children
    "testsuites": (set(), {"name", "time", *COUNTS}, {"testsuite"}),
    "testsuite": ({"name", *COUNTS}, {"time", "timestamp", "hostname", "skipped"}, {"testcase"}),
    "testcase": ({"name", "classname"}, {"time"}, {"failure", "error", "skipped"}),
    "failure": (set(), {"message", "type"}, set()),
}


def check_sarif(text: str) -> None:
    """Raises ValidationError."""
    jsonschema.Draft202012Validator(SARIF).validate(json.loads(text))


def check_junit(text: str) -> None:
    """Raises AssertionError for an element or attribute that readers would not know, or a count that is wrong."""
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, optional, children = JUNIT[element.tag]
        assert required <= element.attrib.keys() <= required | optional, element.attrib
        assert {child.tag for child in element} <= children
    for suite in root:
        cases = suite.findall("testcase")
        failed = [case for case in cases if case.find("failure") is not None]
        assert (suite.attrib["tests"], suite.attrib["failures"]) == (str(len(cases)), str(len(failed)))
