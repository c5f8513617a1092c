"""Every table, once. Lists are ordered by `sequence`, never by seconds; times are unix seconds.

On PostgreSQL a `sequence` is taken before its commit: of two concurrent rows, the one with the higher number may be
visible first, so it orders pages and the queue, but cannot be used to follow a list. Events can be followed: their
numbers are taken under the job's row lock. Rows are read and written by the files beside this one, one per noun.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Sequence = BigInteger().with_variant(Integer, "sqlite")


def _partial(name: str, *columns: str, where: str, postgresql: str = "") -> Index:
    """An index of those rows only for which `where` holds, in the words that SQLAlchemy makes of the same condition.

    Both databases use it for a query only where the condition has no bound values.
    """
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(postgresql or where))


installation = Table(
    "installation",
    metadata,
    Column("singleton", Integer, primary_key=True),  # always 1
    Column("organization_id", String(64), nullable=False),
    Column("organization", String(32), nullable=False),  # the slug, frozen: it is in every model name
    Column("created_at", BigInteger, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("role", String(16), nullable=False),  # project | admin
    Column("sha256", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

sessions = Table(
    "sessions",  # sign-ins to the dashboard, by the hash of what the browser sends
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),
    Column("project_id", ForeignKey("projects.id"), nullable=False),  # which an admin's may change
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

bases = Table(
    "bases",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("source", Text, nullable=False),
    Column("revision", String(255), nullable=False),
    Column("hashes", JSON, nullable=False),  # weights, tokenizer, chat_template -> sha256
    Column("created_at", BigInteger, nullable=False),
    Column("announce_seconds", Float),  # how long the last announcement of a model of it took
)

base_aliases = Table(
    "base_aliases",  # set by command; the catalogue's file may have more
    metadata,
    Column("alias", String(255), primary_key=True),
    Column("base", String(255), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

model_aliases = Table(
    "model_aliases",  # of tuned models: a project's own names, which it moves
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("model", String(512), nullable=False),
    Column("candidate", String(512)),
    Column("candidate_weight", Float),  # its share of the requests
    Column("previous_model", String(512)),  # where a rollback leads
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "name"),
    Index(None, "name"),
)

model_alias_changes = Table(
    "model_alias_changes",  # by name: those of a deleted alias stay
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("action", String(16), nullable=False),
    Column("model", String(512), nullable=False),
    Column("candidate", String(512)),
    Column("candidate_weight", Float),
    Column("key_id", String(64), nullable=False),
    Column("key_name", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "project_id", "alias", "sequence"),
)

files = Table(
    "files",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("filename", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("deleted_at", BigInteger),  # hidden from users; the bytes stay while a job needs them
    Column("swept_at", BigInteger),  # the bytes are gone
    Column("status_details", Text),  # what is wrong with its lines
    Index(None, "project_id", "sequence"),
    _partial("ix_files_living", "project_id", "bytes", where="deleted_at IS NULL"),
    _partial("ix_files_expiring", "expires_at", where="deleted_at IS NULL AND expires_at IS NOT NULL"),
    _partial("ix_files_unswept", "deleted_at", where="deleted_at IS NOT NULL AND swept_at IS NULL"),
)

file_segments = Table(
    "file_segments",
    metadata,
    Column("file_id", ForeignKey("files.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("base", String(255), nullable=False),
    Column("training_file", ForeignKey("files.id"), nullable=False),
    Column("validation_file", ForeignKey("files.id")),
    Column("objective", String(32), nullable=False),
    Column("tuning", JSON, nullable=False),
    Column("hyperparameters", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("suffix", String(64)),
    Column("status", String(24), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("parent_model", Text),
    Column("metadata", JSON(none_as_null=True)),
    Column("integrations", JSON, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("error", JSON(none_as_null=True)),
    Column("fine_tuned_model", Text),
    Column("result_file", String(64)),
    Column("trained_tokens", BigInteger),
    Column("step", Integer, nullable=False, default=0),
    Column("total_steps", Integer),
    Column("seconds_per_step", Float),
    Column("training_data", Text),  # the object of its tokenised training file; set before it is used
    Column("validation_data", Text),
    Column("swept_at", BigInteger),  # its snapshots and samples are gone
    Column("pause_requested_at", BigInteger),  # the worker that holds it shall bring it to rest
    Column("alias", String(255)),  # of its base: its models are named after it
    Column("report_files", JSON(none_as_null=True)),  # ids of its result files besides `result_file`
    Column("publication", JSON(none_as_null=True)),  # trained and stored: what is still to be announced
    Column("safeguards", JSON(none_as_null=True)),  # early stopping, the best step, a forgetting report; null: none
    Column("key_id", String(64)),  # of the API key that created it, with the key's name at that time
    Column("key_name", String(64)),
    Index(None, "project_id", "sequence"),
    Index(None, "status", "base", "sequence"),
    Index(None, "project_id", "status"),
    Index(None, "training_file", "status"),
    Index(None, "validation_file", "status"),
    Index(None, "parent_model", "status"),
    _partial("ix_jobs_training_data", "training_data", where="training_data IS NOT NULL"),
    _partial("ix_jobs_validation_data", "validation_data", where="validation_data IS NOT NULL"),
    _partial("ix_jobs_without_metadata", "project_id", "sequence", where="metadata IS NULL"),
    _partial("ix_jobs_unswept", "finished_at", where="finished_at IS NOT NULL AND swept_at IS NULL"),
)

job_metadata = Table(
    "job_metadata",  # each pair of a job's `metadata`, to be found by index
    metadata,
    Column("job_sequence", ForeignKey("jobs.sequence"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", String(512), nullable=False),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Index("ix_job_metadata_pair", "project_id", "key", "value", "job_sequence"),
)

datasets = Table(
    "datasets",  # tokenised files by their content: jobs that need the same tokens share one
    metadata,
    Column("key", String(64), primary_key=True),  # of `workers.data.content_key`
    Column("object_key", Text, nullable=False, unique=True),
    Column("sha256", String(64), nullable=False),  # of the object
    Column("num_examples", Integer, nullable=False),
    Column("used_at", Float, nullable=False),  # when a validation last took it, by the database's clock
    Column("described", Integer),  # version of what a check has stored beside the object; null: nothing
    Index(None, "used_at"),
)

checks = Table(
    "checks",  # what is known of jobs before they exist
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("base", String(255), nullable=False),
    Column("alias", String(255)),
    Column("parent_model", Text),
    Column("training_file", ForeignKey("files.id"), nullable=False),
    Column("validation_file", ForeignKey("files.id")),
    Column("objective", String(32), nullable=False),
    Column("tuning", JSON, nullable=False),
    Column("hyperparameters", JSON, nullable=False),
    Column("safeguards", JSON(none_as_null=True)),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("conditions", String(64), nullable=False),  # hash of what of the installation decides the result
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("training_data", Text),  # the object of its tokenised training file
    Column("validation_data", Text),
    Index(None, "project_id", "sequence"),
    Index(None, "created_at"),
    _partial("ix_checks_training_data", "training_data", where="training_data IS NOT NULL"),
    _partial("ix_checks_validation_data", "validation_data", where="validation_data IS NOT NULL"),
)

work = Table(
    "work",  # what is still to be done: a row goes when its subject has ended
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("subject_id", String(64), nullable=False),  # what it is about, in the kind's own table
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("base", String(255)),  # null: needs no model
    Column("attempt", Integer, nullable=False, default=0),  # the fence: every claim counts it up
    Column("crashes", Integer, nullable=False, default=0),  # since the last progress
    Column("postponements", Integer, nullable=False, default=0),  # since the last progress
    Column("paused", Boolean, nullable=False, default=False),  # nobody may claim it
    Column("owner", String(64)),
    Column("lease_expires_at", Float),  # by the database's clock; null while nobody holds it
    Column("not_before", Float),  # by the database's clock; null: at once
    Column("yield_to", String(64)),  # the project that its holder has been asked to make room for
    UniqueConstraint("kind", "subject_id"),
    Index(None, "subject_id"),
    Index(None, "kind", "base", "sequence"),
    Index(None, "owner"),
    _partial("ix_work_held", "kind", "lease_expires_at", where="lease_expires_at IS NOT NULL"),
    _partial(
        "ix_work_waiting",
        *("kind", "base", "sequence"),
        where="owner IS NULL AND paused IS 0",
        postgresql="owner IS NULL AND paused IS false",
    ),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", String(256), nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("secret", String(64), nullable=False),  # in clear: every request is signed with it
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("old_secret", String(64)),
    Column("old_secret_until", BigInteger),
    Column("succeeded_at", BigInteger),  # the last delivery
    Column("disabled_at", BigInteger),
    Column("disabled_reason", Text),
    Index(None, "project_id", "sequence"),
)

webhook_deliveries = Table(
    "webhook_deliveries",  # on their way; each has a row of work
    metadata,
    Column("id", String(64), primary_key=True),
    Column("endpoint_id", String(64), nullable=False),  # which may be deleted before
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("job_id", String(64), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("payload", Text, nullable=False),  # the bytes that are sent, each time
    Column("created_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
)

work_shares = Table(
    "work_shares",  # whose turn it is among projects that hold equally much
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("served_at", Float, nullable=False),  # the project's last claim, by the database's clock
)

workers = Table(
    "workers",  # those that are running, as they said at their last beat
    metadata,
    Column("id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("beat_at", Float, nullable=False),  # by the database's clock
    Column("bases", JSON, nullable=False),  # base -> "" when it is ready, else why it is not
    Column("memory", JSON(none_as_null=True)),  # base -> what its trainer had once it was loaded
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("key", String(64)),  # what makes a replayed event the same event
    UniqueConstraint("job_id", "key"),
    _partial("ix_job_events_messages", "job_id", "sequence", where="type = 'message'"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("pruned_at", BigInteger),
    UniqueConstraint("job_id", "step"),
    Index(None, "model_name"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("prefix", Text, nullable=False),
    Column("files", JSON, nullable=False),  # name -> sha256
    Column("created_at", BigInteger, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("name", String(512), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id")),  # null: it was imported
    Column("base", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("tuning", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),  # a tombstone: the name is never used again
    Column("swept_at", BigInteger),  # the artifact's bytes are gone
    Column("task", String(32), nullable=False, server_default="generate"),  # see `service.recipes.tasks`
    Column("import_id", String(64)),  # what made it, where no job did
    Index(None, "project_id", "sequence"),
    _partial("ix_models_unswept", "deleted_at", where="deleted_at IS NOT NULL AND swept_at IS NULL"),
)

model_imports = Table(
    "model_imports",  # adapters that were trained elsewhere
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("base", String(255), nullable=False),
    Column("alias", String(255)),
    Column("suffix", String(64)),
    Column("files", JSON, nullable=False),  # name -> id of a file
    Column("owns_files", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("error", JSON(none_as_null=True)),
    Column("publication", JSON(none_as_null=True)),  # what is stored and still to be announced
    Column("tuning", JSON(none_as_null=True)),
    Column("model", Text),
    Column("agreement", JSON(none_as_null=True)),
    Column("swept_at", BigInteger),  # its private objects are gone
    Index(None, "project_id", "sequence"),
    Index(None, "status", "finished_at"),
)

model_merges = Table(
    "model_merges",  # models merged into their bases, kept for a while
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("model", String(512), nullable=False, unique=True),
    Column("base", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("error", JSON(none_as_null=True)),
    Column("bytes", BigInteger),
    Column("sha256", String(64)),
    Index(None, "project_id"),
    Index(None, "finished_at"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("content_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # announced
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("life_seconds", BigInteger),  # of the file that it becomes
    Column("status", String(16), nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("stored_parts", Integer, nullable=False),
    Column("file_id", ForeignKey("files.id")),
    Column("swept_at", BigInteger),  # nothing but its file's bytes is left in storage
    Index(None, "swept_at", "expires_at"),
)

upload_parts = Table(
    "upload_parts",  # until they become the segments of a file, or are swept
    metadata,
    Column("id", String(64), primary_key=True),
    Column("upload_id", ForeignKey("uploads.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Index(None, "upload_id"),
)

removed_rows = Table(
    "removed_rows",  # where rows of lists stood (`service.db.cursors`)
    metadata,
    Column("listed", String(64), primary_key=True),  # the table
    Column("owner", Text, primary_key=True),  # whose list it was in: a project, model or job
    Column("id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("removed_at", BigInteger, nullable=False),
    Index(None, "removed_at"),
)

checkpoint_permissions = Table(
    "checkpoint_permissions",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("model_name", ForeignKey("models.name"), nullable=False),
    Column("project_id", ForeignKey("projects.id"), nullable=False),  # which may call the model
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("model_name", "project_id"),
    Index(None, "project_id"),
)
