"""The metrics of vLLM that docs/operating/ names for operators to watch are those that a real one exports."""

import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.house_rules.tree import ROOT
from tests.servers.vllm import Vllm

pytestmark = pytest.mark.slow

NAME = re.compile(r"\b(?:vllm:[a-z0-9_]+|process_[a-z_]+)")


def test_every_metric_of_vllm_on_the_page_exists(vllm: Vllm) -> None:
    pages = (ROOT / "docs" / "operating").glob("*.md")
    named = {name for page in pages for name in NAME.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    body = {"model": vllm.publish("metrics1", seed=5), "prompt": [70, 71], "max_tokens": 2}
    assert httpx.post(f"{vllm.url}/v1/completions", json=body, timeout=60).status_code == 200
    exported = set()
    for family in text_string_to_metric_families(httpx.get(f"{vllm.url}/metrics", timeout=10).text):
        exported |= {family.name, *(sample.name for sample in family.samples)}
    assert named - exported == set()
