"""The connection options of an S3 store, out of an installation's settings. See `service.settings.settings`."""

from dataclasses import dataclass, field
from typing import Literal

AddressingStyle = Literal["auto", "path", "virtual"]


@dataclass(frozen=True)
class S3Config:
    """Empty texts stand for boto3's own defaults."""

    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    addressing_style: AddressingStyle
    part_bytes: int
    connect_timeout_seconds: float
    read_timeout_seconds: float
    attempts: int
