"""Which URLs a webhook may have and which addresses it may go to: nothing inside, in whatever form it is written."""

from ipaddress import ip_address

import pytest

from service.domain.errors import InvalidRequest
from service.webhooks.targets import ForbiddenTarget, check_addresses, check_url, is_public

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "::8.8.8.8",
    "2002:7f00:1::",
    "2002:808:808::",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "2001:0:7f00:1::1",
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]

REFUSED = [
    "http://example.com/",
    "ftp://example.com/",
    "https://",
    "https:///path",
    "//example.com",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://localhost/",
    "https://internal/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[fe80::1%25eth0]/",
    "https://10.0.0.1:8080/",
    "https://169.254.169.254/latest/meta-data/",
    "https://0/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com\\@127.0.0.1/",
    "https://exa%6dple.com/",
    "https://exämple.com/",
    "https://1.1.1.1.1/",
    "https://example.0x7f/",
]
TAKEN = [
    "https://example.com/hooks?x=1",
    "https://example.com:8443/",
    "https://hooks.xn--exmple-cua.com./",
    "https://8.8.8.8/",
]


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_is_public(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(ForbiddenTarget):
        check_addresses(["8.8.8.8", address])  # one public address beside it does not help


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    check_addresses([address])


@pytest.mark.parametrize("url", [*REFUSED, "https://example.com/ x", "https://" + "a" * 2048 + ".com"])
def test_urls_that_could_lead_inside_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_url(url, private=False)
    assert refused.value.param == "url"


@pytest.mark.parametrize("url", TAKEN)
def test_public_urls_are_taken(url: str) -> None:
    check_url(url, private=False)


@pytest.mark.parametrize("url", ["http://localhost:8080/hook", "https://10.0.0.1/", "http://[::1]/"])
def test_a_setting_allows_what_is_inside(url: str) -> None:
    check_url(url, private=True)


@pytest.mark.parametrize("url", ["ftp://localhost/", "http://user@localhost/", "http://"])
def test_the_setting_allows_no_other_form(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url, private=True)
