"""/metrics, read as Prometheus reads it."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

METRICS = "http://luthier/metrics"
BASE = {"base": "luthier-tiny"}


class Page:
    """One scrape, read as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """The sample's value; None where there is none."""
        found = [sample.value for sample in self._samples if sample.name == name and sample.labels == labels]
        assert len(found) <= 1, f"{name} {labels} is there {len(found)} times"
        return found[0] if found else None

    def labels(self) -> set[str]:
        return {value for sample in self._samples for value in sample.labels.values()}


async def scrape(admin: httpx.AsyncClient) -> Page:
    response = await admin.get(METRICS)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Page(response.text)
