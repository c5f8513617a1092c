"""Every setting of Luthier, once: its name, type, unit, default and one sentence.

A setting is read from the environment as `LUTHIER_<NAME>`. `docs/settings.md` is written from this file.
Knows nothing of how a setting is used.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """The settings of one installation; every process of it reads the same."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("data"), description="Folder of the embedded database, objects, scratch and key.")
    database_url: str = Field(
        "", description="`postgresql://user:password@host/name`; empty means SQLite in the data folder."
    )
    storage_url: str = Field(
        "", description="`file:///folder` of the objects; empty means `objects` in the data folder."
    )
    catalogue: Path = Field(
        Path(__file__).parent / "bases.toml", description="TOML file that lists the base models of this installation."
    )
    organization: str = Field(
        "luthier", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Slug of the organisation in model names; frozen at the first start.",
    )  # fmt: skip

    database_connections: int = Field(10, ge=1, description="Connections to PostgreSQL that one process holds at most.")
    database_connect_seconds: float = Field(
        5.0, gt=0, description="How long to wait for a connection to PostgreSQL, new or free, before answering 503."
    )
    database_command_seconds: float = Field(
        20.0, gt=0, description="How long one SQL command may run in PostgreSQL before it is ended with a 503."
    )
    database_lock_seconds: float = Field(
        10.0, gt=0, description="How long one SQL command may wait in PostgreSQL for a row that another holds."
    )

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on.")
    engine_urls: str = Field(
        "http://127.0.0.1:8001", description="Comma-separated base URLs of the engines that serve tokens."
    )
    engine_host: str = Field("127.0.0.1", description="Address that the embedded engine listens on; keep it private.")
    engine_port: int = Field(8001, ge=0, le=65535, description="Port that the embedded engine listens on.")
    engine_cache_bytes: int = Field(
        512 * MIB, ge=MIB, description="Bytes of adapters that an engine keeps on its local disk."
    )
    engine_resident_adapters: int = Field(32, ge=1, description="Adapters that the embedded engine keeps in memory.")
    engine_batch_rows: int = Field(16, ge=1, description="Sequences that the embedded engine generates at once.")
    engine_timeout_seconds: float = Field(
        600.0, gt=0, description="Longest silence of an engine before the gateway gives a request up."
    )

    file_limit_bytes: int = Field(512 * MIB, ge=1, description="Largest file that POST /v1/files accepts.")
    row_limit_bytes: int = Field(8 * MIB, ge=1, description="Longest line of a training file.")
    examples_minimum: int = Field(10, ge=1, description="Fewest examples that a training file may hold.")

    requests_per_minute: int = Field(
        0, ge=0, description="Completions that one API key may ask for per minute; 0 is no limit."
    )
    tokens_per_minute: int = Field(
        0, ge=0, description="Tokens of prompts and answers that one API key may use per minute; 0 is no limit."
    )

    slots: int = Field(4, ge=1, description="Jobs that one trainer holds at a time.")
    validations: int = Field(2, ge=1, description="Files that one worker checks at a time.")
    lease_seconds: float = Field(15.0, gt=0, description="How long a worker may stay silent before its job passes on.")
    poll_seconds: float = Field(0.1, gt=0, description="How often the embedded bell looks at the database.")
    sweep_seconds: float = Field(5.0, gt=0, description="How often the chores look for what must happen by itself.")
    snapshot_steps: int = Field(50, ge=1, description="Optimizer steps between two snapshots of a job.")
    turn_tokens: int = Field(4096, ge=1, description="Tokens that a job trains before the next slot has its turn.")
    crash_limit: int = Field(3, ge=1, description="Crashes of the trainer in a job's turns before the job fails.")
    checkpoints_kept: int = Field(3, ge=1, description="Newest checkpoints of a job that stay callable.")
    trainer_threads: int = Field(2, ge=1, description="CPU threads of a trainer; part of the bit-exact fingerprint.")
    engine_threads: int = Field(2, ge=1, description="CPU threads of the embedded engine.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where trainer and embedded engine compute.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'luthier.db'}"

    @property
    def storage(self) -> str:
        """The object store's URL in force."""
        return self.storage_url or f"file://{self.data_dir.absolute() / 'objects'}"

    @property
    def scratch_dir(self) -> Path:
        """Where workers keep what may be lost: staged data, snapshots before they are stored, caches."""
        return self.data_dir.absolute() / "scratch"

    @property
    def engines(self) -> list[str]:
        """The engines' base URLs, without trailing slashes."""
        return [url.strip().rstrip("/") for url in self.engine_urls.split(",") if url.strip()]
