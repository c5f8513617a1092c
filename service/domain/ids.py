"""Opaque identifiers with OpenAI's prefixes. Nothing may be read out of an id, not even its age."""

import secrets
import string

ALPHANUMERIC = string.ascii_letters + string.digits


def random_text(length: int) -> str:
    """Unguessable letters and digits."""
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(length))


def file_id() -> str:
    return f"file-{random_text(24)}"


def job_id() -> str:
    return f"ftjob-{random_text(24)}"


def check_id() -> str:
    return f"ftcheck-{random_text(24)}"


def import_id() -> str:
    return f"modelimport-{random_text(24)}"


def merge_id() -> str:
    return f"modelmerge-{random_text(24)}"


def event_id() -> str:
    return f"ftevent-{random_text(24)}"


def checkpoint_id() -> str:
    return f"ftckpt_{random_text(24)}"


def permission_id() -> str:
    return f"cp_{random_text(24)}"


def alias_change_id() -> str:
    return f"aliaschange_{random_text(24)}"


def project_id() -> str:
    return f"proj_{random_text(24)}"


def organization_id() -> str:
    return f"org-{random_text(24)}"


def api_key() -> str:
    """A bearer key: 48 characters of 62, so a plain SHA-256 of it is a safe thing to store."""
    return f"sk-luthier-{random_text(48)}"


def session_token() -> str:
    """What a browser that is signed in sends; as unguessable as a key."""
    return random_text(48)


def key_id() -> str:
    return f"key_{random_text(24)}"


def request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def publication_id() -> str:
    """The 8 characters that make each published model's name its own."""
    return random_text(8)


def dataset_id(content: str) -> str:
    """Of stored rows of that content: rows that are stored again, after others were removed, have another."""
    return f"{content}-{random_text(8)}"


def webhook_endpoint_id() -> str:
    return f"whe_{random_text(24)}"


def webhook_id() -> str:
    """Of one event on its way to one endpoint, the same at every attempt: receivers recognise repetitions by it."""
    return f"wh_{random_text(24)}"


def webhook_event_id() -> str:
    return f"evt_{random_text(24)}"


def work_id() -> str:
    return f"work_{random_text(24)}"


def worker_id() -> str:
    return f"worker_{random_text(12)}"


def upload_id() -> str:
    return f"upload_{secrets.token_hex(16)}"


def part_id() -> str:
    return f"part_{secrets.token_hex(16)}"


def response_id() -> str:
    return f"resp_{secrets.token_hex(24)}"


def message_id() -> str:
    return f"msg_{secrets.token_hex(24)}"


def reasoning_id() -> str:
    return f"rs_{secrets.token_hex(24)}"


def function_call_id() -> str:
    return f"fc_{secrets.token_hex(24)}"


def call_id() -> str:
    """For a call that its engine gave no id: its output names it."""
    return f"call_{random_text(24)}"
