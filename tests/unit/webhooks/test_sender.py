"""One attempt: where the connection goes, whatever names, redirects and receivers say."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from service.webhooks.sender import WebhookSender
from tests.given.receiver import Receiver, receiver


@pytest.fixture
async def inside() -> AsyncIterator[Receiver]:
    """A service that no webhook may reach."""
    async with receiver() as found:
        yield found


class Names:
    """A resolver that says one thing after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers[min(len(self.asked), len(self._answers)) - 1]


def port_of(found: Receiver) -> str:
    return found.url.rpartition(":")[2].partition("/")[0]


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["2002:7f00:1::"], ["64:ff9b::7f00:1"], ["::1%lo"]],
)
async def test_a_name_that_leads_inside_is_not_called(inside: Receiver, addresses: list[str]) -> None:
    sender = WebhookSender(5.0, private=False, resolve=Names(addresses).resolve)
    sent = await sender.post(f"https://example.com:{port_of(inside)}/", b"{}", {})
    assert sent.status is None and "not public" in sent.reason
    assert inside.received == []


async def test_a_name_that_was_public_before_is_checked_again(inside: Receiver) -> None:
    names = Names(["127.0.0.1"], ["8.8.8.8"])
    sender = WebhookSender(5.0, private=False, resolve=names.resolve)
    assert (await sender.post(f"https://example.com:{port_of(inside)}/", b"{}", {})).status is None
    assert names.asked == ["example.com"]


async def test_the_connection_goes_to_the_address_that_was_checked(inside: Receiver) -> None:
    """The name exists for the test's resolver only, and that is asked once: nothing else looks it up again."""
    names = Names(["127.0.0.1"], ["203.0.113.1"])
    sender = WebhookSender(5.0, private=True, resolve=names.resolve)
    sent = await sender.post(f"http://rebinding.example:{port_of(inside)}/hook", b"{}", {"webhook-id": "wh_1"})
    assert sent.delivered and names.asked == ["rebinding.example"]
    assert inside.received[0].headers["host"] == f"rebinding.example:{port_of(inside)}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(inside: Receiver, status: int) -> None:
    async with receiver() as outside:
        outside.status, outside.location = status, inside.url
        sent = await WebhookSender(5.0, private=True).post(outside.url, b"{}", {})
    assert (sent.status, sent.delivered) == (status, False)
    assert inside.received == [] and len(outside.received) == 1


@pytest.mark.parametrize("url", ["http://example.com/", "https://2130706433/", "https://[::1]/", "https://127.0.0.1/"])
async def test_a_url_that_was_stored_before_the_setting_was_withdrawn_is_refused(url: str) -> None:
    assert (await WebhookSender(5.0, private=False, resolve=Names(["8.8.8.8"]).resolve).post(url, b"{}", {})).error


async def test_a_silent_receiver_and_a_closed_port_are_reasons_not_errors(inside: Receiver) -> None:
    inside.silent = True
    sent = await WebhookSender(0.1, private=True).post(inside.url, b"{}", {})
    assert sent.reason == "it did not respond within 0.1 seconds"
    assert "cannot be reached" in (await WebhookSender(5.0, private=True).post("http://127.0.0.1:1/", b"{}", {})).reason


async def test_what_is_no_http_is_a_reason(inside: Receiver) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n")
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        sent = await WebhookSender(5.0, private=True).post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert sent.status is None
