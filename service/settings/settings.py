"""Every setting of Luthier, once: its name, type, unit, default and one sentence.

A setting is read from the environment as `LUTHIER_<NAME>`. `docs/settings.md` is written from this file.
Does not depend on how a setting is used.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.urls import http_url, http_urls, origins, redis_url

MIB = 1024 * 1024

# Every number has an upper bound, of what the parts that get it can hold: 64 or 32 bits, PostgreSQL's milliseconds.
Seconds = Annotated[float, Field(le=1e9, allow_inf_nan=False)]
DatabaseSeconds = Annotated[float, Field(le=2e6, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(le=10**9)]
Bytes = Annotated[int, Field(le=2**60)]
Count = Annotated[int, Field(le=10**9)]
Threads = Annotated[int, Field(le=1024)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
HttpUrls = Annotated[str, AfterValidator(http_urls)]
Origins = Annotated[str, AfterValidator(origins)]
RedisUrl = Annotated[str, AfterValidator(redis_url)]


def own_catalogue(data_dir: Path) -> Path:
    """The catalogue in the data folder, which is used where no other is set."""
    return data_dir.absolute() / "bases.toml"


class Settings(BaseSettings):
    """The settings of one installation; every process of it reads the same."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("data"), description="Folder of the embedded database, objects, scratch and key.")
    database_url: str = Field(
        "", description="`postgresql://user:password@host/name`; empty means SQLite in the data folder."
    )
    storage_url: str = Field(
        "",
        description="`file:///folder` or `s3://bucket/prefix` of the objects, of this installation alone; "
        "empty means `objects` in the data folder.",
    )
    storage_endpoint_url: HttpUrl = Field("", description="URL of an S3-compatible server; empty means AWS.")
    storage_region: str = Field(
        "", description="Region of the bucket; empty means boto3's own, or us-east-1 with an endpoint URL."
    )
    storage_access_key_id: str = Field(
        "", description="Access key of the bucket; empty means that boto3 looks for one in its own places."
    )
    storage_secret_access_key: SecretStr = Field(SecretStr(""), description="Secret that belongs to the access key.")
    storage_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Where a request has the bucket's name; `auto` is `path` with an endpoint URL."
    )
    storage_connect_timeout_seconds: Seconds = Field(
        5.0, gt=0, description="Longest wait for a connection to the S3 server."
    )
    storage_read_timeout_seconds: Seconds = Field(
        20.0, gt=0, description="Longest silence of the S3 server within a request."
    )
    storage_attempts: Count = Field(4, ge=1, description="How often a request to the S3 server is tried.")
    storage_part_bytes: Bytes = Field(
        8 * MIB, ge=5 * MIB,
        description="Bytes of one part of an object in S3, which has at most 10000; four of an upload are in memory.",
    )  # fmt: skip
    storage_presigned: bool = Field(
        False, description="Whether downloads of files are redirected to the S3 server, which clients must reach."
    )
    catalogue: Path = Field(
        Path(__file__).parents[1] / "bases.toml",
        description="TOML file that lists the base models of this installation; without this setting `bases.toml` in "
        "the data folder, which `luthierd bases add` makes, where there is one.",
    )
    extensions: str = Field(
        "",
        description="Comma-separated modules that bring methods of your own; every process imports them at its start.",
    )
    organization: str = Field(
        "luthier", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Slug of the organisation in model names; frozen at the first start.",
    )  # fmt: skip

    redis_url: RedisUrl = Field(
        "",
        description="`redis://`, `rediss://` or `unix://` URL of the bell and of shared limits; empty means neither.",
    )
    database_connections: Count = Field(
        10, ge=1, description="Connections to PostgreSQL that one process holds at most."
    )
    database_connect_seconds: DatabaseSeconds = Field(
        5.0, gt=0, description="How long to wait for a connection to PostgreSQL, new or free, before answering 503."
    )
    database_command_seconds: DatabaseSeconds = Field(
        20.0, gt=0, description="How long one SQL command may run in PostgreSQL before it is ended with a 503."
    )
    database_lock_seconds: DatabaseSeconds = Field(
        10.0, gt=0, description="How long one SQL command may wait in PostgreSQL for a row that another holds."
    )
    strict_organization: bool = Field(
        False,
        description="Whether an `OpenAI-Organization` or `OpenAI-Project` of elsewhere is refused; else it is ignored.",
    )

    write_seconds: Seconds = Field(
        60.0, gt=0, description="How long a client may read nothing of its response before its connection is ended."
    )
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on.")
    api_processes: int = Field(
        1, ge=1, le=64, description="API processes of `luthierd up` and `luthierd serve`, all at that address and port."
    )
    cors_origins: Origins = Field(
        "",
        description="Comma-separated origins of web pages that may call the API, such as `https://app.example.com`; "
        "`*` is every page, empty means none.",
    )
    session_seconds: WholeSeconds = Field(
        12 * 3600,
        ge=60,
        description="How long a sign-in to the dashboard lasts; revoking its key ends it earlier.",
    )
    engine_urls: HttpUrls = Field(
        "http://127.0.0.1:8001",
        description="Comma-separated URLs of the first base's engines; the next base's are one port above, and so on.",
    )
    engine_base: str = Field("", description="Id of the base that an engine serves; empty means the catalogue's first.")
    engine_host: str = Field("127.0.0.1", description="Address that an engine listens on; keep it private.")
    engine_port: int = Field(8001, ge=0, le=65535, description="Port that an engine listens on.")
    engine_api_key: SecretStr = Field(
        SecretStr(""),
        description="Secret that engines expect of API and workers, the same on every machine; empty: one is made and "
        "kept in the data folder; `off`: they check none.",
    )
    engine_cache_bytes: Bytes = Field(
        512 * MIB, ge=MIB, description="Bytes of adapters that an engine keeps on its local disk."
    )
    engine_resident_adapters: Count = Field(32, ge=1, description="Adapters that an engine keeps in memory.")
    engine_adapter_bytes: Bytes = Field(
        4096 * MIB, ge=MIB, description="Bytes of memory for the adapters that the embedded engine keeps."
    )
    engine_batch_rows: Count = Field(16, ge=1, description="Sequences that the embedded engine generates at once.")
    engine_timeout_seconds: Seconds = Field(
        600.0, gt=0, description="Longest silence of an engine before the gateway gives a request up."
    )

    vllm_python: Path = Field(
        Path(".cache/vllm/bin/python"), description="Python of vLLM's own environment, with Luthier's plugin in it."
    )
    vllm_sequences: Count = Field(
        128, ge=1, description="Sequences that the API sends to one vLLM at a time; more wait, and projects take turns."
    )
    vllm_max_loras: Count = Field(8, ge=1, description="Adapters that one batch of vLLM may mix.")
    vllm_kv_cache_gib: Count = Field(4, ge=1, description="GiB of vLLM's key-value cache on a machine without a GPU.")
    vllm_drain_seconds: Seconds = Field(
        120.0, gt=0, description="How long running requests may take to finish before vLLM is restarted or stopped."
    )
    vllm_arguments: str = Field("", description="More flags for `vllm serve`, as on a command line.")

    reserve_bytes: Bytes = Field(
        2 * MIB, ge=0, description="Bytes of disk that are kept for deleting, with the embedded database; 0: none."
    )
    file_limit_bytes: Bytes = Field(512 * MIB, ge=1, description="Largest file that POST /v1/files accepts.")
    import_limit_bytes: Bytes = Field(
        1024 * MIB, ge=1, description="Largest adapter that POST /v1/models imports, unpacked; a larger one than "
        "LUTHIER_FILE_LIMIT_BYTES is uploaded in parts first.",
    )  # fmt: skip
    result_files: Literal["base64", "csv"] = Field(
        "base64",
        description="How a job's result file is downloaded: in base64 as from OpenAI, whose scripts decode it, or as "
        "it is; `Accept: text/csv` gets it as it is from either.",
    )
    row_limit_bytes: Bytes = Field(8 * MIB, ge=1, description="Longest line of a training file.")
    examples_minimum: Count = Field(10, ge=1, description="Fewest examples that a training file may hold.")

    requests_per_minute: Count = Field(
        0, ge=0, description="Completions that one API key may ask for per minute; 0 is no limit."
    )
    tokens_per_minute: Count = Field(
        0, ge=0, description="Tokens of prompts and answers that one API key may use per minute; 0 is no limit."
    )

    project_files: Count = Field(
        10_000, ge=1, description="Files that one project may have, with those that open uploads will be."
    )
    project_bytes: Bytes = Field(
        100 * 1024 * MIB, ge=1, description="Bytes that the files and open uploads of one project may have together."
    )
    project_uploads: Count = Field(100, ge=1, description="Uploads that one project may have open at a time.")
    project_jobs: Count = Field(200, ge=1, description="Jobs that one project may have that have not started.")
    project_aliases: Count = Field(100, ge=1, description="Model aliases that one project may have.")
    check_life_seconds: WholeSeconds = Field(
        7 * 24 * 3600, ge=60, description="How long a check of a job, and what it says of its files, is kept."
    )
    merged_life_seconds: WholeSeconds = Field(
        24 * 3600, ge=60, description="How long a model that was merged into its base for a download is kept."
    )
    project_webhook_endpoints: Count = Field(20, ge=1, description="Webhook endpoints that one project may have.")
    project_requests: Count = Field(
        256,
        ge=1,
        description="Completions that one project may have in progress, waiting ones too; of all API "
        "processes together with LUTHIER_REDIS_URL, or where they are those of one machine.",
    )

    webhook_private: bool = Field(
        False, description="Whether webhooks may go to private addresses and over http; else public ones over https."
    )
    webhook_seconds: Seconds = Field(
        10.0, gt=0, description="How long a webhook's receiver may take to respond; at most 70 % of a lease counts."
    )

    bases: str = Field(
        "", description="Comma-separated ids of the bases that this worker trains, one at a time; empty means all."
    )
    wandb_api_key: SecretStr = Field(
        SecretStr(""), description="Key of Weights & Biases for jobs that ask for it; empty: they get a warning event."
    )
    wandb_entities: str = Field(
        "",
        description="Comma-separated `entity` that jobs may name on the account of the key; `*`: any; empty: none.",
    )
    wandb_base_url: HttpUrl = Field(
        "", description="URL of a Weights & Biases server of your own; empty means its public service."
    )

    slots: Count = Field(4, ge=1, description="Jobs that a worker trains at a time, in turns or in several trainers.")
    validations: Count = Field(2, ge=1, description="Files that one worker checks at a time.")
    check_processes: Count = Field(
        0, ge=0, description="Processes in which one worker reads large files that it checks, of all checks together; "
        "0: as many as the CPUs carry, 4 at most; 1: files are read in the worker's own.",
    )  # fmt: skip
    lease_seconds: Seconds = Field(
        15.0, gt=0, description="How long a worker may stay silent before its job passes on."
    )
    poll_seconds: Seconds = Field(
        0.1, gt=0, description="How often a worker looks for a ring in Redis, or without Redis for a commit in a "
        "database outside the data folder."
    )  # fmt: skip
    sweep_seconds: Seconds = Field(
        5.0, gt=0, description="How often chores are done, and how often a worker looks at the jobs without a ring."
    )
    orphan_sweep_seconds: Seconds = Field(
        3600.0, gt=0, description="How often the chores look for stored bytes that no row of the database names."
    )
    orphan_age_seconds: Seconds = Field(
        86400.0, ge=0, description="How old such bytes must be to be removed; longer than any upload or publication."
    )
    snapshot_steps: Count = Field(50, ge=1, description="Optimizer steps between two snapshots of a job.")
    turn_tokens: Count = Field(4096, ge=1, description="Tokens that a job trains before the next slot has its turn.")
    slot_steps: Count = Field(
        50, ge=1, description="Optimizer steps that a job does in its slot before it may have to give the slot to a "
        "project that holds fewer; it continues later.",
    )  # fmt: skip
    crash_limit: Count = Field(
        3, ge=1, description="Crashes (of its worker, or of the trainer in the job's turn) without progress in between "
        "before a job fails.",
    )  # fmt: skip
    checkpoints_kept: Count = Field(3, ge=1, description="Newest checkpoints of a job that stay callable.")
    trainer_threads: Threads = Field(
        0, ge=0, description="CPU threads of a trainer; 0: 1 for a base below 20 million parameters, else one for each "
        "CPU, 8 at most. Part of the bit-exact fingerprint; a job that continues keeps those that it began with.",
    )  # fmt: skip
    trainers: Count = Field(
        0, ge=0, description="Trainer processes of one base in a worker, over which its jobs are spread; 0: on a GPU "
        "or one CPU 1; else as many as keep the CPUs busy, 2 to 4, as far as half of the memory that is free beside "
        "the first has room for the others.",
    )  # fmt: skip
    engine_threads: Threads = Field(2, ge=1, description="CPU threads of the embedded engine.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where trainer and embedded engine compute.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")

    @model_validator(mode="before")
    @classmethod
    def _take_own_catalogue(cls, given: dict[str, Any]) -> dict[str, Any]:
        own = own_catalogue(Path(given.get("data_dir", cls.model_fields["data_dir"].default)))
        return {"catalogue": own, **given} if own.is_file() else given

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
    def vllm_dir(self) -> Path:
        """What one vLLM keeps on disk; two on one machine have different ports."""
        return self.scratch_dir / f"vllm-{self.engine_port}"

    @property
    def held_bases(self) -> list[str]:
        """The names in `bases`."""
        return [name.strip() for name in self.bases.split(",") if name.strip()]

    @property
    def allowed_origins(self) -> list[str]:
        """The origins in `cors_origins`, as browsers send them."""
        return [origin.strip().rstrip("/") for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def allowed_entities(self) -> list[str]:
        """The names in `wandb_entities`."""
        return [name.strip() for name in self.wandb_entities.split(",") if name.strip()]

    @property
    def engines(self) -> list[str]:
        """The engines' base URLs, without trailing slashes."""
        return [url.strip().rstrip("/") for url in self.engine_urls.split(",") if url.strip()]
