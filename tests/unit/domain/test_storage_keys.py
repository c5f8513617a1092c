"""Every key of storage leads back to whom it belongs, and is one that a store takes."""

import pytest

from service.domain import storage_keys
from service.storage.base import check_key

NAME = "ft:tiny:acme:my-suffix:AbCd1234:ckpt-step-5"


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        (storage_keys.file_key("file-1"), ("files", "file-1")),
        (storage_keys.part_key("upload_1", "part_1"), ("uploads", "upload_1")),
        (storage_keys.dataset_key("ab12-XyZ"), ("data", "ab12-XyZ")),
        (storage_keys.snapshot_prefix("ftjob-1", 2, 10, 7) + "state.json", ("jobs", "ftjob-1")),
        (storage_keys.agreement_key("ftjob-1", NAME), ("jobs", "ftjob-1")),
        (storage_keys.artifact_prefix(NAME) + "manifest.json", ("adapters", NAME)),
        (storage_keys.doctor_key("ab12"), None),
        (storage_keys.INSTALLATION, None),
    ],
)
def test_a_key_leads_back_to_its_owner(key: str, owner: tuple[str, str] | None) -> None:
    check_key(key)
    assert storage_keys.owner_of(key) == owner
