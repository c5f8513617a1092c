"""Somebody who looks at pages without a browser: what HTTP shows of them, cookies kept."""

import re

import httpx
from fastapi import FastAPI

CSRF = re.compile(r'data-csrf="([^"]+[.][0-9a-f]{64})"')


def visitor(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    """A client that sends what browsers send."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    sent = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Site": "same-origin", **headers}
    return httpx.AsyncClient(transport=transport, base_url="http://luthier", headers=sent)


async def sign_in(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/ui/sign-in", data={"key": key, "next": ""})


async def csrf_of(client: httpx.AsyncClient, path: str = "/ui/jobs") -> str:
    """The token that the page carries: of this sign-in and the project that it shows."""
    found = CSRF.search((await client.get(path)).text)
    assert found is not None
    return found[1]
