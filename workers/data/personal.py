"""Likely personal data and keys in a text: what kinds there are, never what they say.

A number counts only where its check digits are right (cards: Luhn, ISO/IEC 7812; IBAN: mod 97, ISO 13616), a phone
number where the numbering plan of its country has it (written internationally, with a +), a key by the forms that its
makers document. Looks at LETTERS characters of a row at most, so that the cost of a row is bounded.
"""

import re
from collections.abc import Iterator
from functools import cache

import phonenumbers
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from stdnum import iban, luhn

LETTERS = 20_000
KINDS = {
    "email": "an e-mail address",
    "phone": "a phone number",
    "card": "a payment card's number",
    "iban": "an IBAN",
    "key": "a key or token",
}

_DETECTORS = (
    AWSKeyDetector, AzureStorageKeyDetector, DiscordBotTokenDetector, GitHubTokenDetector, GitLabTokenDetector,
    JwtTokenDetector, MailchimpDetector, NpmDetector, OpenAIDetector, PrivateKeyDetector, PypiTokenDetector,
    SendGridDetector, SlackDetector, SquareOAuthDetector, StripeDetector, TelegramBotTokenDetector,
)  # fmt: skip
# Forms that the library does not know: ours, Anthropic's, Hugging Face's, Google's.
_MORE_KEYS = re.compile(r"\b(?:sk-luthier-\w{40,}|sk-ant-[\w-]{40,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35})")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
# RFC 2606 and 6761 reserve these for examples: nobody has an address there.
_RESERVED = re.compile(r"@(?:.*\.)?(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)$", re.IGNORECASE)
_CARD = re.compile(r"(?<![\w.,])(?=[2-6])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){3}|\d{4}[ -]\d{6}[ -]\d{5})(?!\w|[.,]\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def kinds_in(text: str) -> set[str]:
    """Which of KINDS the text is likely to hold."""
    text = text[:LETTERS]
    return {kind for kind, found in _FINDERS.items() if any(found(text))}


def _emails(text: str) -> Iterator[bool]:
    if "@" in text:
        yield from (not _RESERVED.search(found[0]) for found in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[bool]:
    if "+" in text:
        yield from (True for _ in phonenumbers.PhoneNumberMatcher(text, None))


def _cards(text: str) -> Iterator[bool]:
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        yield len(set(digits)) > 1 and luhn.is_valid(digits)


def _ibans(text: str) -> Iterator[bool]:
    yield from (iban.is_valid(found[0]) for found in _IBAN.finditer(text))


def _keys(text: str) -> Iterator[bool]:
    yield _MORE_KEYS.search(text) is not None
    yield from (pattern.search(text) is not None for pattern in _key_patterns())


@cache
def _key_patterns() -> list[re.Pattern[str]]:
    made: list[RegexBasedDetector] = [detector() for detector in _DETECTORS]
    return [pattern for detector in made for pattern in detector.denylist]


_FINDERS = {"email": _emails, "phone": _phones, "card": _cards, "iban": _ibans, "key": _keys}
