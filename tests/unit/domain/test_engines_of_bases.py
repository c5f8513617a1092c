"""Which engines serve which base, and that a request goes to those of its own base only."""

import orjson
import pytest

from service.domain.errors import Unavailable
from service.gateway.forward import EngineRequest, Gateway
from service.recipes.base import Base
from service.recipes.catalogue import Catalogue, CatalogueError
from service.recipes.engines import engines_by_base
from tests.given.scripted_engine import COMPLETION, scripted_engine


def catalogue(**engines: list[str]) -> Catalogue:
    """Bases of these ids and engines."""
    entry = {"source": "x", "context_tokens": 256, "learning_rate": {"lora": 1e-2}}
    return Catalogue(
        [
            Base.model_validate({"id": id, "serving": {"tunings": ["lora"], "engines": urls}, **entry})
            for id, urls in engines.items()
        ]
    )


def test_a_single_base_is_served_at_the_settings_urls() -> None:
    urls = ["http://a:1", "http://b"]
    assert engines_by_base(catalogue(one=[]), urls) == {"one": urls}


def test_further_bases_are_served_one_port_above_each() -> None:
    found = engines_by_base(catalogue(one=[], own=["http://c:9/"], two=[]), ["http://a:8001", "http://[::1]:9001"])
    assert found == {
        "one": ["http://a:8001", "http://[::1]:9001"],
        "own": ["http://c:9"],
        "two": ["http://a:8002", "http://[::1]:9002"],
    }


def test_a_second_base_needs_ports_or_engines_of_its_own() -> None:
    with pytest.raises(CatalogueError, match=r"'two'.*serving\.engines"):
        engines_by_base(catalogue(one=[], two=[]), ["http://a"])


async def test_a_request_goes_to_an_engine_of_its_base() -> None:
    async with scripted_engine() as one, scripted_engine() as other:
        gateway = Gateway({"one": [one.url], "other": [other.url]}, 5)
        for number in range(6):
            answer = await gateway.open(EngineRequest("completions", "proj_1", "other", f"model-{number}", {}))
            assert orjson.loads(await answer.body()) == orjson.loads(COMPLETION)
            answer.close()
        with pytest.raises(Unavailable, match="No engine"):
            await gateway.open(EngineRequest("completions", "proj_1", "left the catalogue", "m", {}))
        await gateway.close()
        assert (len(one.seen), len(other.seen)) == (0, 6)
