"""The objects that the service sends (dataclasses) and those that it takes (typed dicts, `...Param`).

Generated from openapi/openapi.json by `make sdk`; changes by hand are lost. Annotations are kept as text, whole: of a
quoted name inside one, such as `list["Plan"]`, Python 3.9 and 3.10 would not find the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional, TypedDict, Union

from luthier.records import Record

__all__ = [
    "Advice",
    "AliasCandidateObject",
    "AliasCandidateParam",
    "Alive",
    "AllowedToolsParam",
    "ApiKeyDeleted",
    "ApiKeyObject",
    "ApiKeyReference",
    "ApiKeyWithValue",
    "BottleneckSettingsParam",
    "ChatChoice",
    "ChatCompletion",
    "ChatLogprobs",
    "CheckDeleted",
    "CheckFailure",
    "CheckObject",
    "CheckResult",
    "CheckRows",
    "CheckpointMetrics",
    "CheckpointObject",
    "ClassificationHyperparametersParam",
    "ClassificationInputParam",
    "ClassificationJobHyperparameters",
    "ClassificationMethod",
    "ClassificationOutput",
    "ClassificationSettings",
    "Classified",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionUsage",
    "Counts",
    "DpoHyperparametersParam",
    "DpoJobHyperparameters",
    "DpoMethod",
    "DpoParam",
    "DpoSettings",
    "Duration",
    "EarlyStopping",
    "EarlyStoppingParam",
    "EmbeddingHyperparametersParam",
    "EmbeddingJobHyperparameters",
    "EmbeddingList",
    "EmbeddingMethod",
    "EmbeddingObject",
    "EmbeddingParam",
    "EmbeddingSettings",
    "EmbeddingUsage",
    "EventObject",
    "Failure",
    "FileDeleted",
    "FileExpirationAfterParam",
    "FileObject",
    "FileReport",
    "Finding",
    "FunctionCallItemParam",
    "FunctionCallOutputItemOutputParam",
    "FunctionCallOutputItemParam",
    "FunctionCallParam",
    "FunctionToolParam",
    "Health",
    "HyperparametersParam",
    "Ia3SettingsParam",
    "IncompleteDetails",
    "InputDetails",
    "InputReasoningPartParam",
    "IntegrationParam",
    "JobFailure",
    "JobHyperparameters",
    "JobObject",
    "KtoHyperparametersParam",
    "KtoJobHyperparameters",
    "KtoMethod",
    "KtoParam",
    "KtoSettings",
    "LengthBucket",
    "LoraSettingsParam",
    "LoreftSettingsParam",
    "Memory",
    "MemoryNeed",
    "MessageItemContentParam",
    "MessageItemParam",
    "MethodParam",
    "MissSettingsParam",
    "ModelAliasChangeObject",
    "ModelAliasDeleted",
    "ModelAliasObject",
    "ModelDeleted",
    "ModelImportAgreement",
    "ModelImportFailure",
    "ModelImportObject",
    "ModelObject",
    "NamedFunctionParam",
    "OrpoHyperparametersParam",
    "OrpoJobHyperparameters",
    "OrpoMethod",
    "OrpoParam",
    "OrpoSettings",
    "OtherMethod",
    "OtherPartParam",
    "OutputCall",
    "OutputDetails",
    "OutputLogprob",
    "OutputMessage",
    "OutputReasoning",
    "OutputText",
    "OutputTopLogprob",
    "PartialSettingsParam",
    "PermissionDeleted",
    "PermissionObject",
    "Piece",
    "Plan",
    "PrefixSettingsParam",
    "Progress",
    "PromptSettingsParam",
    "Ready",
    "ReasoningItemParam",
    "ReasoningSettingsParam",
    "ReasoningText",
    "RequestMessageParam",
    "ResponseError",
    "ResponseMessage",
    "ResponseObject",
    "ResponseUsage",
    "RewardModelMethod",
    "RewardModelParam",
    "RewardModelSettings",
    "Root",
    "RowMask",
    "SequenceMask",
    "SimpoHyperparametersParam",
    "SimpoJobHyperparameters",
    "SimpoMethod",
    "SimpoParam",
    "SimpoSettings",
    "StreamOptionsParam",
    "StreamSettingsParam",
    "SupervisedMethod",
    "SupervisedParam",
    "SupervisedSettings",
    "TextMethod",
    "TextParam",
    "TextPartParam",
    "TextSettingsInputParam",
    "TextSettingsOutput",
    "TokenLogprob",
    "ToolCallParam",
    "TopLogprob",
    "TuningParam",
    "UploadObject",
    "UploadPartObject",
    "VeraSettingsParam",
    "WandbParam",
    "WebhookEndpointDeleted",
    "WebhookEndpointObject",
    "WebhookEndpointTestResult",
    "WebhookEndpointWithSecret",
    "WorkerRoom",
]


@dataclass(frozen=True)
class Advice(Record):
    """What is probably wrong though it is valid, with how often it is so and some lines (from 1) of `param`'s
    file.
    """

    code: str
    message: str
    param: Optional[str] = None
    count: Optional[int] = None
    lines: Optional[list[int]] = None


@dataclass(frozen=True)
class AliasCandidateObject(Record):
    """`AliasCandidateObject`."""

    model: str
    weight: float


@dataclass(frozen=True)
class Alive(Record):
    """The process responds."""

    status: Literal["ok"] = "ok"


@dataclass(frozen=True)
class ApiKeyDeleted(Record):
    """The response to a deletion: the key is revoked."""

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: bool = True


@dataclass(frozen=True)
class ApiKeyObject(Record):
    """A key without its secret. A revoked one stays in the list, and is worth nothing."""

    id: str
    name: str
    created_at: int
    revoked_at: Optional[int]
    role: str
    project_id: str
    project: str
    object: Literal["api_key"] = "api_key"


@dataclass(frozen=True)
class ApiKeyReference(Record):
    """The API key that did something, and its name at that time."""

    id: str
    name: str


@dataclass(frozen=True)
class ApiKeyWithValue(Record):
    """A new key; `value` is the secret, which is not shown again."""

    id: str
    name: str
    created_at: int
    revoked_at: Optional[int]
    role: str
    project_id: str
    project: str
    value: str
    object: Literal["api_key"] = "api_key"


@dataclass(frozen=True)
class ChatChoice(Record):
    """`ChatChoice`."""

    index: int
    message: ResponseMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: Optional[ChatLogprobs] = None


@dataclass(frozen=True)
class ChatCompletion(Record):
    """The response to POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    system_fingerprint: Optional[str] = None
    usage: Optional[CompletionUsage] = None


@dataclass(frozen=True)
class ChatLogprobs(Record):
    """`ChatLogprobs`."""

    content: Optional[list[TokenLogprob]]


@dataclass(frozen=True)
class CheckDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["fine_tuning.check"] = "fine_tuning.check"
    deleted: bool = True


@dataclass(frozen=True)
class CheckFailure(Record):
    """Why the check could not be done."""

    code: str
    message: str
    param: Optional[str]


@dataclass(frozen=True)
class CheckObject(Record):
    """A check. `succeeded` says that it was done; `result.valid` says whether the job could start."""

    id: str
    model: str
    created_at: int
    finished_at: Optional[int]
    status: Literal["queued", "running", "succeeded", "failed"]
    training_file: str
    validation_file: Optional[str]
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    tuning: dict[str, Any]
    error: Optional[CheckFailure]
    result: Optional[CheckResult]
    object: Literal["fine_tuning.check"] = "fine_tuning.check"


@dataclass(frozen=True)
class CheckResult(Record):
    """Everything that was found."""

    valid: bool
    training_file: FileReport
    validation_file: Optional[FileReport]
    plan: Optional[Plan]
    warnings: list[Advice]
    prints_the_date: bool = False
    duration: Optional[Duration] = None
    duration_unknown: Optional[str] = None
    memory: Optional[Memory] = None
    memory_unknown: Optional[str] = None


@dataclass(frozen=True)
class CheckRows(Record):
    """What is trained of some rows, as the base reads them; `total` rows are in the file."""

    data: list[RowMask]
    total: int
    has_more: bool
    object: Literal["fine_tuning.check.rows"] = "fine_tuning.check.rows"


@dataclass(frozen=True)
class CheckpointMetrics(Record):
    """OpenAI's `metrics`, and those of other objectives; `step` is a whole number, which strict clients insist
    on.

    `type` is the job's method, which OpenAI sends although its reference has no such field.
    """

    step: int
    type: str
    train_loss: Optional[float] = None
    train_mean_token_accuracy: Optional[float] = None
    valid_loss: Optional[float] = None
    valid_mean_token_accuracy: Optional[float] = None
    full_valid_loss: Optional[float] = None
    full_valid_mean_token_accuracy: Optional[float] = None


@dataclass(frozen=True)
class CheckpointObject(Record):
    """OpenAI's `fine_tuning.job.checkpoint`."""

    id: str
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"


@dataclass(frozen=True)
class ClassificationJobHyperparameters(Record):
    """`ClassificationJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    class_weights: Optional[Union[Literal["balanced"], dict[str, float]]] = None
    pooling: Optional[Literal["last", "cls", "mean"]] = None


@dataclass(frozen=True)
class ClassificationMethod(Record):
    """The loss of classification jobs, with what is known of its settings."""

    classification: ClassificationSettings
    type: Literal["classification"] = "classification"


@dataclass(frozen=True)
class ClassificationOutput(Record):
    """The response to POST /v1/classifications."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: CompletionUsage


@dataclass(frozen=True)
class ClassificationSettings(Record):
    """`ClassificationSettings`."""

    hyperparameters: ClassificationJobHyperparameters


@dataclass(frozen=True)
class Classified(Record):
    """One text: vLLM's `label`, `probs` and `num_classes`, and what a name or a score says."""

    index: int
    label: Optional[str]
    probs: list[float]
    num_classes: int
    scores: Optional[dict[str, float]] = None
    labels: Optional[list[str]] = None
    score: Optional[float] = None


@dataclass(frozen=True)
class Completion(Record):
    """The response to POST /v1/completions; each event of a stream has this form as well."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: Optional[str] = None
    usage: Optional[CompletionUsage] = None


@dataclass(frozen=True)
class CompletionChoice(Record):
    """`CompletionChoice`."""

    index: int
    text: str
    finish_reason: Optional[Literal["stop", "length", "content_filter"]]
    logprobs: Optional[CompletionLogprobs]


@dataclass(frozen=True)
class CompletionLogprobs(Record):
    """`CompletionLogprobs`."""

    text_offset: list[int]
    token_logprobs: list[Optional[float]]
    tokens: list[str]
    top_logprobs: Optional[list[Optional[dict[str, float]]]]


@dataclass(frozen=True)
class CompletionUsage(Record):
    """`CompletionUsage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Counts(Record):
    """Exact counts of a valid file. A row has several sequences where it is a pair, where the base's template
    shows an earlier turn differently once others follow, or where the tuning edits prompts (`loreft`).
    `examples` is what a step counts. `context_tokens` is how many a row may have: the base's context without
    the positions that the tuning takes. Nothing is ever truncated: a row that is too long is invalid.
    """

    rows: int
    sequences: int
    examples: int
    tokens: int
    trained_tokens: int
    longest_tokens: int
    context_tokens: int
    lengths: list[LengthBucket]
    truncated_rows: int = 0


@dataclass(frozen=True)
class DpoJobHyperparameters(Record):
    """`DpoJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    length_normalized: bool = False
    beta: Union[Literal["auto"], float] = "auto"
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class DpoMethod(Record):
    """The loss of dpo jobs, with what is known of its settings."""

    dpo: DpoSettings
    type: Literal["dpo"] = "dpo"


@dataclass(frozen=True)
class DpoSettings(Record):
    """`DpoSettings`."""

    hyperparameters: DpoJobHyperparameters


@dataclass(frozen=True)
class Duration(Record):
    """Seconds that a job will take from its slot on, its announcement included: `low` to `high` with probability
    LEVEL.

    `based_on` jobs were measured, of all projects. `queue_position` jobs waited for a slot of the base when
    this was estimated; their time is not included.
    """

    seconds: int
    low: int
    high: int
    based_on: int
    queue_position: int


@dataclass(frozen=True)
class EarlyStopping(Record):
    """End the training at the end of an epoch, once the validation file says that it no longer improves."""

    patience: int = 1
    min_delta: float = 0.0
    metric: str = "full_valid_loss"


@dataclass(frozen=True)
class EmbeddingJobHyperparameters(Record):
    """`EmbeddingJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    scale: float = 20.0
    pooling: Optional[Literal["last", "cls", "mean"]] = None


@dataclass(frozen=True)
class EmbeddingList(Record):
    """The response to POST /v1/embeddings."""

    object: Literal["list"]
    model: str
    data: list[EmbeddingObject]
    usage: EmbeddingUsage


@dataclass(frozen=True)
class EmbeddingMethod(Record):
    """The loss of embedding jobs, with what is known of its settings."""

    embedding: EmbeddingSettings
    type: Literal["embedding"] = "embedding"


@dataclass(frozen=True)
class EmbeddingObject(Record):
    """The vector of one text, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: Union[list[float], str]


@dataclass(frozen=True)
class EmbeddingSettings(Record):
    """`EmbeddingSettings`."""

    hyperparameters: EmbeddingJobHyperparameters


@dataclass(frozen=True)
class EmbeddingUsage(Record):
    """`EmbeddingUsage`."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class EventObject(Record):
    """OpenAI's `fine_tuning.job.event`."""

    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"


@dataclass(frozen=True)
class Failure(Record):
    """An error as a job would report it."""

    code: str
    message: str
    param: Optional[str]


@dataclass(frozen=True)
class FileDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@dataclass(frozen=True)
class FileObject(Record):
    """OpenAI's file object; a file is ready as soon as it exists, whatever its `status`.

    `error`: lines of a training file are not JSON objects; `status_details` says which, and what to do.
    """

    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: Optional[int]
    object: Literal["file"] = "file"
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: Optional[str] = None


@dataclass(frozen=True)
class FileReport(Record):
    """One file. `problems` has the first PROBLEMS_KEPT of `num_problems`; `error` is what a job would fail with."""

    valid: bool
    error: Optional[Failure]
    num_problems: int
    problems: list[Finding]
    counts: Optional[Counts]


@dataclass(frozen=True)
class Finding(Record):
    """What is wrong on one line (from 1), and what to do. `field` is a path; empty: the line as a whole."""

    line: int
    field: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Health(Record):
    """As `/readyz`, with the engines: one that is unavailable affects completions only."""

    status: Literal["ok", "unavailable"]
    database: Literal["ok", "unavailable"]
    storage: Literal["ok", "unavailable"]
    engines: dict[str, Literal["ok", "unavailable"]]


@dataclass(frozen=True)
class IncompleteDetails(Record):
    """`IncompleteDetails`."""

    reason: Literal["max_output_tokens", "content_filter"]


@dataclass(frozen=True)
class InputDetails(Record):
    """`InputDetails`."""

    cache_write_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class JobFailure(Record):
    """Why the job failed."""

    code: str
    message: str
    param: Optional[str]


@dataclass(frozen=True)
class JobHyperparameters(Record):
    """ "auto" until the files are validated, then the resolved number."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]


@dataclass(frozen=True)
class JobObject(Record):
    """OpenAI's `fine_tuning.job`."""

    id: str
    model: str
    created_at: int
    finished_at: Optional[int]
    fine_tuned_model: Optional[str]
    organization_id: str
    result_files: list[str]
    status: Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
    validation_file: Optional[str]
    training_file: str
    hyperparameters: JobHyperparameters
    trained_tokens: Optional[int]
    error: Optional[JobFailure]
    user_provided_suffix: Optional[str]
    seed: int
    estimated_finish: Optional[int]
    integrations: list[dict[str, Any]]
    metadata: Optional[dict[str, str]]
    method: Union[
        SupervisedMethod,
        ClassificationMethod,
        DpoMethod,
        EmbeddingMethod,
        KtoMethod,
        OrpoMethod,
        RewardModelMethod,
        SimpoMethod,
        TextMethod,
        OtherMethod,
    ]
    progress: Progress
    tuning: dict[str, Any]
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    usage_metrics: None = None
    shared_with_openai: bool = False
    eval_id: None = None
    early_stopping: Optional[EarlyStopping] = None
    checkpoint_selection: Optional[Literal["last", "best"]] = None
    forgetting_report: Optional[bool] = None
    api_key: Optional[ApiKeyReference] = None


@dataclass(frozen=True)
class KtoJobHyperparameters(Record):
    """`KtoJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


@dataclass(frozen=True)
class KtoMethod(Record):
    """The loss of kto jobs, with what is known of its settings."""

    kto: KtoSettings
    type: Literal["kto"] = "kto"


@dataclass(frozen=True)
class KtoSettings(Record):
    """`KtoSettings`."""

    hyperparameters: KtoJobHyperparameters


@dataclass(frozen=True)
class LengthBucket(Record):
    """How many sequences have at least `at_least` tokens and fewer than `below`."""

    at_least: int
    below: int
    sequences: int


@dataclass(frozen=True)
class Memory(Record):
    """What the job needs, beside what the workers have that were running when it was checked."""

    needs: MemoryNeed
    workers: list[WorkerRoom]


@dataclass(frozen=True)
class MemoryNeed(Record):
    """Bytes by part. All but the activations are exact; these are an estimate, of the largest micro-batch.

    `training_bytes` is what the job adds to a worker that holds the base: all parts but its weights.
    """

    base_weights_bytes: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    training_bytes: int


@dataclass(frozen=True)
class ModelAliasChangeObject(Record):
    """What an alias stood for after a change."""

    id: str
    created_at: int
    action: Literal["created", "updated", "promoted", "rolled_back", "deleted"]
    model: str
    candidate: Optional[AliasCandidateObject]
    api_key: ApiKeyReference
    object: Literal["model_alias.change"] = "model_alias.change"


@dataclass(frozen=True)
class ModelAliasDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["model_alias"] = "model_alias"
    deleted: bool = True


@dataclass(frozen=True)
class ModelAliasObject(Record):
    """A name of the project's, and what it stands for. `previous_model` is where a rollback leads."""

    id: str
    created_at: int
    updated_at: int
    model: str
    candidate: Optional[AliasCandidateObject]
    previous_model: Optional[str]
    object: Literal["model_alias"] = "model_alias"


@dataclass(frozen=True)
class ModelDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


@dataclass(frozen=True)
class ModelImportAgreement(Record):
    """How an engine compares with a worker that has scored a fixed text with the adapter and without it."""

    message: str
    level: Literal["info", "warn", "error"]
    figures: dict[str, float]


@dataclass(frozen=True)
class ModelImportFailure(Record):
    """Why the adapter did not become a model."""

    code: str
    message: str
    param: Optional[str]


@dataclass(frozen=True)
class ModelImportObject(Record):
    """An adapter on its way to become a model; `model` is its name once it may be called."""

    id: str
    base: str
    suffix: Optional[str]
    created_at: int
    finished_at: Optional[int]
    status: Literal["queued", "running", "succeeded", "failed"]
    model: Optional[str]
    error: Optional[ModelImportFailure]
    agreement: Optional[ModelImportAgreement]
    object: Literal["model.import"] = "model.import"


@dataclass(frozen=True)
class ModelObject(Record):
    """OpenAI's model object, with `kind`, `task` and `imported` besides."""

    id: str
    created: int
    owned_by: str
    kind: Optional[Literal["causal", "encoder", "encoder-decoder"]]
    task: Optional[Literal["generate", "classify", "embed"]]
    object: Literal["model"] = "model"
    shutdown_date: None = None
    imported: bool = False


@dataclass(frozen=True)
class OrpoJobHyperparameters(Record):
    """`OrpoJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    beta: float = 0.1


@dataclass(frozen=True)
class OrpoMethod(Record):
    """The loss of orpo jobs, with what is known of its settings."""

    orpo: OrpoSettings
    type: Literal["orpo"] = "orpo"


@dataclass(frozen=True)
class OrpoSettings(Record):
    """`OrpoSettings`."""

    hyperparameters: OrpoJobHyperparameters


@dataclass(frozen=True)
class OtherMethod(Record):
    """The loss of jobs whose method this installation no longer has; its settings are beside `type`, by its
    name.
    """

    type: str


@dataclass(frozen=True)
class OutputCall(Record):
    """`OutputCall`."""

    id: str
    call_id: str
    name: str
    type: Literal["function_call"] = "function_call"
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    arguments: str = ""


@dataclass(frozen=True)
class OutputDetails(Record):
    """`OutputDetails`."""

    reasoning_tokens: int = 0


@dataclass(frozen=True)
class OutputLogprob(Record):
    """`OutputLogprob`."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[OutputTopLogprob]


@dataclass(frozen=True)
class OutputMessage(Record):
    """`OutputMessage`."""

    id: str
    type: Literal["message"] = "message"
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    role: Literal["assistant"] = "assistant"
    content: Optional[list[OutputText]] = None


@dataclass(frozen=True)
class OutputReasoning(Record):
    """`OutputReasoning`."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    summary: Optional[list[dict[str, Any]]] = None
    content: Optional[list[ReasoningText]] = None


@dataclass(frozen=True)
class OutputText(Record):
    """`OutputText`."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: Optional[list[dict[str, Any]]] = None
    logprobs: Optional[list[OutputLogprob]] = None


@dataclass(frozen=True)
class OutputTopLogprob(Record):
    """`OutputTopLogprob`."""

    token: str
    bytes: list[int]
    logprob: float


@dataclass(frozen=True)
class PermissionDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool = True


@dataclass(frozen=True)
class PermissionObject(Record):
    """OpenAI's `checkpoint.permission`."""

    id: str
    created_at: int
    project_id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"


@dataclass(frozen=True)
class Piece(Record):
    """A stretch of a sequence that is trained or not, as the base reads it: special tokens are visible."""

    text: str
    trained: bool
    weight: float
    tokens: int


@dataclass(frozen=True)
class Plan(Record):
    """What the job would do: every "auto" resolved."""

    hyperparameters: dict[str, Any]
    learning_rate: float
    steps_per_epoch: int
    total_steps: int
    tokens: int
    trained_tokens: int


@dataclass(frozen=True)
class Progress(Record):
    """How far the job is. `queue_position` counts the jobs before it, and is null once it has left the queue."""

    percent: float
    step: int
    total_steps: Optional[int]
    seconds_remaining: Optional[int]
    queue_position: Optional[int]


@dataclass(frozen=True)
class Ready(Record):
    """`status` is the database's: it must take writes. Storage that is unavailable affects files and jobs only."""

    status: Literal["ok", "unavailable"]
    database: Literal["ok", "unavailable"]
    storage: Literal["ok", "unavailable"]


@dataclass(frozen=True)
class ReasoningText(Record):
    """`ReasoningText`."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str = ""


@dataclass(frozen=True)
class ResponseError(Record):
    """`ResponseError`."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


@dataclass(frozen=True)
class ResponseMessage(Record):
    """`ResponseMessage`."""

    role: Literal["assistant"]
    content: Optional[str]
    refusal: Optional[str] = None


@dataclass(frozen=True)
class ResponseObject(Record):
    """The response to POST /v1/responses; a stream's events hold it as far as it has come."""

    id: str
    created_at: int
    instructions: Optional[str]
    max_output_tokens: Optional[int]
    max_tool_calls: Optional[int]
    model: str
    parallel_tool_calls: bool
    prompt_cache_key: Optional[str]
    prompt_cache_retention: Optional[Literal["in_memory", "24h"]]
    reasoning: dict[str, Any]
    safety_identifier: Optional[str]
    temperature: Optional[float]
    text: dict[str, Any]
    tool_choice: Union[str, dict[str, Any]]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: Optional[float]
    user: Optional[str]
    metadata: dict[str, str]
    object: Literal["response"] = "response"
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    background: Literal[False] = False
    completed_at: Optional[int] = None
    error: Optional[ResponseError] = None
    incomplete_details: Optional[IncompleteDetails] = None
    output: Optional[list[Union[OutputMessage, OutputReasoning, OutputCall]]] = None
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
    usage: Optional[ResponseUsage] = None


@dataclass(frozen=True)
class ResponseUsage(Record):
    """`ResponseUsage`."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


@dataclass(frozen=True)
class RewardModelMethod(Record):
    """The loss of reward_model jobs, with what is known of its settings."""

    reward_model: RewardModelSettings
    type: Literal["reward_model"] = "reward_model"


@dataclass(frozen=True)
class RewardModelSettings(Record):
    """`RewardModelSettings`."""

    hyperparameters: JobHyperparameters


@dataclass(frozen=True)
class Root(Record):
    """Paths of this server. A client's base URL is the server's address followed by `api`."""

    version: str
    name: str = "Luthier"
    api: str = "/v1"
    models: str = "/v1/models"
    openapi: str = "/openapi.json"
    health: str = "/health"


@dataclass(frozen=True)
class RowMask(Record):
    """The row on one line (from 1) of a file."""

    line: int
    sequences: list[SequenceMask]


@dataclass(frozen=True)
class SequenceMask(Record):
    """One training sequence of a row."""

    tokens: int
    trained_tokens: int
    pieces: list[Piece]


@dataclass(frozen=True)
class SimpoJobHyperparameters(Record):
    """`SimpoJobHyperparameters`."""

    n_epochs: Union[Literal["auto"], int]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    beta: float = 2.0
    gamma: float = 1.0


@dataclass(frozen=True)
class SimpoMethod(Record):
    """The loss of simpo jobs, with what is known of its settings."""

    simpo: SimpoSettings
    type: Literal["simpo"] = "simpo"


@dataclass(frozen=True)
class SimpoSettings(Record):
    """`SimpoSettings`."""

    hyperparameters: SimpoJobHyperparameters


@dataclass(frozen=True)
class SupervisedMethod(Record):
    """The loss of supervised jobs, with what is known of its settings."""

    supervised: SupervisedSettings
    type: Literal["supervised"] = "supervised"


@dataclass(frozen=True)
class SupervisedSettings(Record):
    """`SupervisedSettings`."""

    hyperparameters: JobHyperparameters


@dataclass(frozen=True)
class TextMethod(Record):
    """The loss of text jobs, with what is known of its settings."""

    text: TextSettingsOutput
    type: Literal["text"] = "text"


@dataclass(frozen=True)
class TextSettingsOutput(Record):
    """`TextSettings-Output`."""

    hyperparameters: JobHyperparameters


@dataclass(frozen=True)
class TokenLogprob(Record):
    """`TokenLogprob`."""

    token: str
    logprob: float
    bytes: Optional[list[int]]
    top_logprobs: list[TopLogprob]


@dataclass(frozen=True)
class TopLogprob(Record):
    """`TopLogprob`."""

    token: str
    logprob: float
    bytes: Optional[list[int]]


@dataclass(frozen=True)
class UploadObject(Record):
    """OpenAI's upload object; `file` is present once the upload is completed."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    expires_at: int
    object: Literal["upload"] = "upload"
    file: Optional[FileObject] = None


@dataclass(frozen=True)
class UploadPartObject(Record):
    """OpenAI's part object."""

    id: str
    created_at: int
    upload_id: str
    object: Literal["upload.part"] = "upload.part"


@dataclass(frozen=True)
class WebhookEndpointDeleted(Record):
    """The response to a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


@dataclass(frozen=True)
class WebhookEndpointObject(Record):
    """An endpoint; a disabled one is sent nothing, and says why."""

    id: str
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    status: Literal["enabled", "disabled"]
    disabled_at: Optional[int]
    disabled_reason: Optional[str]
    object: Literal["webhook_endpoint"] = "webhook_endpoint"


@dataclass(frozen=True)
class WebhookEndpointTestResult(Record):
    """The endpoint has responded; `status_code` says how."""

    webhook_endpoint_id: str
    event_type: str
    status_code: int
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    success: Literal[True] = True


@dataclass(frozen=True)
class WebhookEndpointWithSecret(Record):
    """The response to a creation and a rotation: the secret is shown here and never again."""

    id: str
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    status: Literal["enabled", "disabled"]
    disabled_at: Optional[int]
    disabled_reason: Optional[str]
    signing_secret: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"


@dataclass(frozen=True)
class WorkerRoom(Record):
    """A worker that holds the job's base. Unknown (None) until it has loaded it."""

    worker: str
    device: Optional[str]
    total_bytes: Optional[int]
    free_bytes: Optional[int]
    fits: Optional[bool]


class AliasCandidateParam(TypedDict):
    """A second model, which serves a share of the requests."""

    model: str
    weight: float


class AllowedToolsParam(TypedDict):
    """Only these of the tools may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Sequence[NamedFunctionParam]


class BottleneckSettingsParam(TypedDict, total=False):
    """Bottleneck adapters (Houlsby et al., 2019, [arXiv 1902.00751](https://arxiv.org/abs/1902.00751)): after a
    sublayer and before its residual is added, h + W_up f(W_down h + b) + b', with few numbers in the middle.
    `houlsby` stands after attention and after feed-forward; `pfeiffer` (Pfeiffer et al., 2020, [arXiv
    2005.00247](https://arxiv.org/abs/2005.00247)) after feed-forward only, at half the cost. W_up begins at
    zero, so the first step starts from the base's own answers. Unlike a low-rank adapter it is not linear, so
    it cannot be merged into the base. The places are found by the base's structure; a base of another
    structure is refused.
    """

    placement: Literal["houlsby", "pfeiffer"]
    reduction: int
    size: Union[Literal["auto"], int]
    non_linearity: Literal["relu", "gelu", "silu", "tanh"]


class ClassificationHyperparametersParam(TypedDict, total=False):
    """A label for a text. One linear layer, the *head*, is trained beside the tuning; it reads one vector of the
    text: the state of the last token on a causal base, the mean over the tokens on an encoder. With one label
    per row the loss is the cross entropy -w log p(label), p = softmax(W h + b), as in BERT (Devlin et al.,
    2018, [arXiv 1810.04805](https://arxiv.org/abs/1810.04805), section 4.1); with several it is the mean over
    the labels of -w y log p - (1 - y) log(1 - p), p = sigmoid(W h + b). The head begins at zero, so the first
    loss is the logarithm of the number of labels, or of 2. `accuracy` is the share of rows whose label, or
    whose set of labels, is right. At the end of an epoch `full_valid_macro_f1` is the mean over the labels of
    2 TP / (2 TP + FP + FN) in the validation file, and the job's result files have its confusion matrix at
    the last one. Labels are those of the training file.

    The votes of rows with `votes` are combined by Dawid and Skene's method (1979, [Applied Statistics
    28](https://doi.org/10.2307/2346806)): each annotator's errors and each row's label are estimated in
    turns, p(label j of row i) ~ p_j prod over its votes l by k of pi_jl^(k), until they no longer change. A
    row is trained with its likeliest label, and that label's probability as its weight, times the row's own.
    The job's result file `combined_labels.csv` has, for each row that is trained, the label, its probability,
    and those of all labels.
    """

    class_weights: Optional[Union[Literal["balanced"], Mapping[str, float]]]
    pooling: Optional[Literal["last", "cls", "mean"]]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class ClassificationInputParam(TypedDict, total=False):
    """Settings of the method classification."""

    hyperparameters: Optional[ClassificationHyperparametersParam]


class DpoHyperparametersParam(TypedDict, total=False):
    """Direct preference optimization (Rafailov et al., 2023, [arXiv
    2305.18290](https://arxiv.org/abs/2305.18290)): of two answers to the same conversation, one is preferred.
    With the reward r = beta (log p - log p_ref) of an answer, the loss of a pair is -log sigmoid(r of the
    preferred - r of the other). The reference p_ref is the base, or the model that the job continues. Its
    log-probabilities are computed once, before the first step, so no second model is held. At step 0 the loss
    is log 2, except with `prompt` and `prefix`, which begin elsewhere than the base; `accuracy` is the share
    of pairs whose preferred answer has the greater reward.

    `loss_type` `ipo` (Azar et al., 2023, [arXiv 2310.12036](https://arxiv.org/abs/2310.12036), equation 17)
    is (d - 1 / (2 beta))^2 with d the difference of log p - log p_ref between both answers: the margin has a
    target, so that preferences without exception do not push it further and further; at step 0 the loss is 1
    / (4 beta^2). With `length_normalized` an answer's log-probabilities are averages per token instead of
    sums, so that a long answer does not weigh more (Lambert et al., 2024, Tulu 3, [arXiv
    2411.15124](https://arxiv.org/abs/2411.15124), equation 6; for `ipo` as its authors confirmed to TRL,
    whose ipo this is). `label_smoothing` e takes each preference for wrong with the probability e: (1 - e)
    times the loss, and e times that of the opposite (Mitchell, 2023, [conservative
    DPO](https://ericmitchell.ai/cdpo.pdf)).
    """

    loss_type: Literal["sigmoid", "ipo"]
    length_normalized: bool
    beta: Union[Literal["auto"], float]
    label_smoothing: float
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class DpoParam(TypedDict, total=False):
    """Settings of the method dpo."""

    hyperparameters: Optional[DpoHyperparametersParam]


class EarlyStoppingParam(TypedDict, total=False):
    """End the training at the end of an epoch, once the validation file says that it no longer improves."""

    patience: int
    min_delta: float
    metric: str


class EmbeddingHyperparametersParam(TypedDict, total=False):
    """A vector for a text, of length 1, such that texts which belong together are near each other: for search,
    retrieval, clustering and deduplication. The vector z is the mean of the tokens' last states on an
    encoder, the last token's state on a causal base. Of a step's anchors a_i with their positives p_i the
    loss is -log exp(s cos(a_i, p_i)) / sum_j exp(s cos(a_i, c_j)) over all candidates c of the whole step,
    which are the positives of all its rows and, where rows have them, their negatives: InfoNCE (van den Oord
    et al., 2018, [arXiv 1807.03748](https://arxiv.org/abs/1807.03748)) with negatives of the same batch
    (Henderson et al., 2017, [arXiv 1705.00652](https://arxiv.org/abs/1705.00652)), sentence-transformers'
    MultipleNegativesRankingLoss. A step that is computed in several micro-batches has the loss and the
    gradient of the whole (Gao et al., 2021, [arXiv 2101.06983](https://arxiv.org/abs/2101.06983)), for one
    more pass without gradient. The more rows a step has, the harder its task: `batch_size` "auto" is 32, and
    a step of one row would learn nothing. Two rows of a step with the same positive contradict each other:
    keep such rows few. `accuracy` is the share of anchors whose own positive is the nearest candidate (recall
    at 1); it and the loss depend on the number of candidates, so that a validation file is measured in steps
    of `batch_size` too. There is no layer beside the base: the tuning does it all. `POST /v1/embeddings`
    returns the vectors, in OpenAI's shape.
    """

    scale: float
    pooling: Optional[Literal["last", "cls", "mean"]]
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class EmbeddingParam(TypedDict, total=False):
    """Settings of the method embedding."""

    hyperparameters: Optional[EmbeddingHyperparametersParam]


class FileExpirationAfterParam(TypedDict):
    """When the file expires."""

    anchor: Literal["created_at"]
    seconds: int


class _FunctionCallItemParamRequired(TypedDict):
    """`FunctionCallItem`."""

    call_id: str
    type: Literal["function_call"]
    name: str
    arguments: str


class FunctionCallItemParam(_FunctionCallItemParamRequired, total=False):
    """`FunctionCallItem`."""

    id: Optional[str]
    status: Optional[Literal["in_progress", "completed", "incomplete"]]
    namespace: None
    caller: None


class _FunctionCallOutputItemOutputParamRequired(TypedDict):
    """`FunctionCallOutputItemOutput`."""

    type: Literal["input_text", "output_text"]
    text: str


class FunctionCallOutputItemOutputParam(_FunctionCallOutputItemOutputParamRequired, total=False):
    """`FunctionCallOutputItemOutput`."""

    annotations: Optional[Sequence[Mapping[str, Any]]]
    logprobs: Optional[Sequence[Mapping[str, Any]]]
    prompt_cache_breakpoint: Optional[Mapping[str, Any]]


class _FunctionCallOutputItemParamRequired(TypedDict):
    """`FunctionCallOutputItem`."""

    call_id: str
    type: Literal["function_call_output"]
    output: Union[Sequence[FunctionCallOutputItemOutputParam], str]


class FunctionCallOutputItemParam(_FunctionCallOutputItemParamRequired, total=False):
    """`FunctionCallOutputItem`."""

    id: Optional[str]
    status: Optional[Literal["in_progress", "completed", "incomplete"]]
    namespace: None
    caller: None
    name: Optional[str]


class FunctionCallParam(TypedDict):
    """`FunctionCall`."""

    name: str
    arguments: str


class _FunctionToolParamRequired(TypedDict):
    """`FunctionTool`."""

    type: Literal["function"]
    name: str


class FunctionToolParam(_FunctionToolParamRequired, total=False):
    """`FunctionTool`."""

    description: Optional[str]
    parameters: Optional[Mapping[str, Any]]
    strict: Optional[bool]
    defer_loading: Optional[Literal[False]]
    allowed_callers: Optional[Any]
    output_schema: None


class HyperparametersParam(TypedDict, total=False):
    """Of every objective; "auto" is replaced once the files are validated."""

    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class Ia3SettingsParam(TypedDict, total=False):
    """(IA)^3 (Liu et al., 2022, [arXiv 2205.05638](https://arxiv.org/abs/2205.05638)): one learned factor for
    each output of the attention's key and value layers, y = l * W x, and for each input of the feed-forward's
    last layer, y = W (l * x). Factors begin at one, so the first step starts from the base's own answers.
    Fewer parameters than a low-rank adapter of rank 1 has: for many small models, and few examples.
    """

    target_modules: Union[Literal["auto"], Sequence[str]]
    feedforward_modules: Union[Literal["auto"], Sequence[str]]


class InputReasoningPartParam(TypedDict):
    """`InputReasoningPart`."""

    type: Literal["reasoning_text"]
    text: str


class IntegrationParam(TypedDict):
    """An integration: stored with the job as it was sent; an event reports where it cannot run."""

    type: Literal["wandb"]
    wandb: WandbParam


class KtoHyperparametersParam(TypedDict, total=False):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024, [arXiv
    2402.01306](https://arxiv.org/abs/2402.01306)): of each answer it is known only whether it is wanted, as
    thumbs up and down say. With r = log p - log p_ref of an answer, p_ref as in `dpo`, the loss is
    desirable_weight (1 - sigmoid(beta (r - z))) of a wanted answer and undesirable_weight (1 - sigmoid(beta
    (z - r))) of an unwanted one. z estimates how far the policy is from the reference, KL(p || p_ref), and is
    not trained: the mean r of mismatched answers over the whole step, and at least 0. The mismatched answer
    to a row's prompt is that of a row with another prompt; each answer of the file is one once, so that
    wanted and unwanted ones are as frequent among them as in the file. A step wants several rows: use a
    `batch_size` of 8 or more. While the policy is p_ref, as at most tunings' step 0 (`dpo`), the loss is half
    of the weights' mean. A preference row is two rows here, one wanted and one not. `accuracy` is the share
    of answers on their side of z, `kl` is z. `rewards_chosen` and `rewards_rejected` are the means of beta r
    of the wanted and the unwanted answers, `reward_margin` their difference; a step without such answers has
    none.
    """

    beta: float
    desirable_weight: float
    undesirable_weight: float
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class KtoParam(TypedDict, total=False):
    """Settings of the method kto."""

    hyperparameters: Optional[KtoHyperparametersParam]


class LoraSettingsParam(TypedDict, total=False):
    """Low-rank adaptation (Hu et al., 2021, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)): beside the
    frozen matrix W of a linear layer come two small ones, y = W x + (alpha / r) B A dropout(x). B begins at
    zero, so the first step starts from the base's own answers. The first choice for most jobs. `use_dora`
    learns the magnitude of each output beside its direction (DoRA; Liu et al., 2024, [arXiv
    2402.09353](https://arxiv.org/abs/2402.09353)): closer to full fine-tuning at low ranks, slower, and
    served by the embedded engine or as a LoRA. `use_rslora` divides alpha by sqrt(r) (rsLoRA; Kalajdzievski,
    2023, [arXiv 2312.03732](https://arxiv.org/abs/2312.03732)), so that a high rank learns as fast as a low
    one: for ranks of 64 and more. `init: pissa` starts from the layer's r largest singular values (PiSSA;
    Meng et al., 2024, [arXiv 2404.02948](https://arxiv.org/abs/2404.02948)) as a difference that leaves W
    itself as it is, y = W x + (alpha / r) (B A - B0 A0) x: it learns faster at first, and its artifact is an
    ordinary adapter of rank 2 r, which engines must be able to serve.
    """

    r: int
    alpha: float
    dropout: float
    target_modules: Union[Literal["all-linear"], Sequence[str]]
    use_dora: bool
    use_rslora: bool
    init: Literal["default", "gaussian", "pissa"]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]


class LoreftSettingsParam(TypedDict, total=False):
    """Low-rank representation finetuning (Wu et al., 2024, [arXiv
    2404.03592](https://arxiv.org/abs/2404.03592)): no weight changes; instead the states h after chosen
    blocks are edited in a subspace of `r` dimensions, h + R^T (W h + b - R h), where R has orthonormal rows.
    Only the first and the last positions of the prompt are edited, with the same R, W and b; generated tokens
    are left alone and feel the edit through the cache, so generating costs what the base costs. W begins as R
    and b at zero, so the first step starts from the base's own answers. Few parameters; for prompts that all
    ask for the same kind of answer. A conversation with several trained turns becomes a row for each, whose
    prompt is all before the turn, as an engine gets it; plain text has no prompt, and is refused.
    """

    r: int
    first: int
    last: int
    layers: Union[Literal["all"], Sequence[int]]


class _MessageItemContentParamRequired(TypedDict):
    """`MessageItemContent`."""

    type: Literal["input_text", "output_text"]
    text: str


class MessageItemContentParam(_MessageItemContentParamRequired, total=False):
    """`MessageItemContent`."""

    annotations: Optional[Sequence[Mapping[str, Any]]]
    logprobs: Optional[Sequence[Mapping[str, Any]]]
    prompt_cache_breakpoint: Optional[Mapping[str, Any]]


class _MessageItemParamRequired(TypedDict):
    """`MessageItem`."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Union[Sequence[MessageItemContentParam], str]


class MessageItemParam(_MessageItemParamRequired, total=False):
    """`MessageItem`."""

    id: Optional[str]
    status: Optional[Literal["in_progress", "completed", "incomplete"]]
    type: Optional[Literal["message"]]
    phase: Optional[Literal["commentary", "final_answer"]]


class _MethodParamRequired(TypedDict):
    """Which loss, with its settings; those of other types than `type` are not used, and an event reports them."""

    type: Literal["supervised", "classification", "dpo", "embedding", "kto", "orpo", "reward_model", "simpo", "text"]


class MethodParam(_MethodParamRequired, total=False):
    """Which loss, with its settings; those of other types than `type` are not used, and an event reports them."""

    supervised: Optional[SupervisedParam]
    classification: Optional[ClassificationInputParam]
    dpo: Optional[DpoParam]
    embedding: Optional[EmbeddingParam]
    kto: Optional[KtoParam]
    orpo: Optional[OrpoParam]
    reward_model: Optional[RewardModelParam]
    simpo: Optional[SimpoParam]
    text: Optional[TextParam]
    reinforcement: Optional[Mapping[str, Any]]


class MissSettingsParam(TypedDict, total=False):
    """Matrix shard sharing (MiSS; Kang and Yin, 2024, [arXiv 2409.15371](https://arxiv.org/abs/2409.15371)): the
    inputs of a linear layer are cut into shards of r numbers, which all share one small matrix: y = W x + D
    (x_1 + x_2 + ...). D begins at zero, so the first step starts from the base's own answers. One product
    where `lora` needs two, and about half the parameters at the same rank. Not for layers that store their
    weights as (in, out), as GPT-2 does.
    """

    r: int
    dropout: float
    target_modules: Union[Literal["all-linear"], Sequence[str]]


class NamedFunctionParam(TypedDict):
    """`NamedFunction`."""

    type: Literal["function"]
    name: str


class OrpoHyperparametersParam(TypedDict, total=False):
    """Odds-ratio preference optimization (Hong et al., 2024, [arXiv
    2403.07691](https://arxiv.org/abs/2403.07691)): supervised training on the preferred answer and a
    preference in one, without a reference. With log p the mean log-probability of an answer's tokens and odds
    = p / (1 - p), the loss of a pair is -log p of the preferred - beta log sigmoid(log (odds of the preferred
    / odds of the other)). For a base that has not been trained on such answers yet, in place of a supervised
    job followed by `dpo`. Rewards are beta log p.
    """

    beta: float
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class OrpoParam(TypedDict, total=False):
    """Settings of the method orpo."""

    hyperparameters: Optional[OrpoHyperparametersParam]


class OtherPartParam(TypedDict):
    """A content part of OpenAI's that no engine here can read; rejected by its index."""

    type: Literal["image_url", "input_audio", "file", "refusal"]


class PartialSettingsParam(TypedDict, total=False):
    """Some weights of the base move, in a copy of their own that shares the others with the base. `last:2` are
    the last two blocks, as guides freeze the layers below (Lee et al., 2019, [arXiv
    1911.03090](https://arxiv.org/abs/1911.03090), who found a quarter of the layers enough for 90 % of the
    quality). `biases` are all biases (BitFit; Ben Zaken et al., 2021, [arXiv
    2106.10199](https://arxiv.org/abs/2106.10199)), about 0.1 % of a model that has some; Llama-shaped bases
    have none. Names choose any other part. A job takes four times the size of what moves (over a bfloat16
    base twelve times); the model holds what moves and nothing else, and an engine computes its requests in a
    batch of their own.
    """

    parameters: Union[Literal["biases"], str, Sequence[str]]


class PrefixSettingsParam(TypedDict, total=False):
    """Prefix tuning (Li and Liang, 2021, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190)): every layer
    attends to learned keys and values of some positions before the input, softmax(q [P_k; k]^T / sqrt(d))
    [P_v; v]; no weight of the base is touched. They begin as the base's own keys and values of random tokens
    of the vocabulary, or of a text (section 7.4 there: better than random numbers), so the answers differ
    from the base's before the first step. More room than `prompt`, which learns the first layer's input only;
    each position costs two vectors in each layer. The paper's second network over the prefix is left out: it
    serves the start from random numbers.
    """

    num_virtual_tokens: int
    init: Literal["vocabulary", "random", "text"]
    init_text: str


class PromptSettingsParam(TypedDict, total=False):
    """Prompt tuning (Lester et al., 2021, [arXiv 2104.08691](https://arxiv.org/abs/2104.08691)): learned vectors
    stand before the embeddings of the input; no weight of the base is touched. They begin as embeddings of
    random tokens of the vocabulary, so the answers differ from the base's before the first step; a text that
    says the task (`init: text`) begins nearer to it. For very small artifacts, and bases whose layers shall
    stay untouched.
    """

    num_virtual_tokens: int
    init: Literal["vocabulary", "random", "text"]
    init_text: str


class _ReasoningItemParamRequired(TypedDict):
    """Reasoning of an earlier response, in words; neither a summary nor an encrypted text can be shown to a
    model.
    """

    type: Literal["reasoning"]


class ReasoningItemParam(_ReasoningItemParamRequired, total=False):
    """Reasoning of an earlier response, in words; neither a summary nor an encrypted text can be shown to a
    model.
    """

    id: Optional[str]
    status: Optional[Literal["in_progress", "completed", "incomplete"]]
    content: Optional[Sequence[InputReasoningPartParam]]
    summary: Sequence[Any]
    encrypted_content: None


class ReasoningSettingsParam(TypedDict, total=False):
    """`ReasoningSettings`."""

    effort: Optional[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]]
    summary: None
    generate_summary: None
    context: None
    mode: None


class _RequestMessageParamRequired(TypedDict):
    """A message of any role. Fields that engines do not read may be null or empty: SDKs send responses back."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]


class RequestMessageParam(_RequestMessageParamRequired, total=False):
    """A message of any role. Fields that engines do not read may be null or empty: SDKs send responses back."""

    content: Optional[Union[Sequence[Union[TextPartParam, OtherPartParam]], str]]
    name: Optional[str]
    tool_call_id: Optional[str]
    refusal: Optional[str]
    tool_calls: Optional[Sequence[ToolCallParam]]
    function_call: Optional[FunctionCallParam]
    audio: Optional[Mapping[str, Any]]
    annotations: Optional[Sequence[Mapping[str, Any]]]
    reasoning: Optional[str]
    reasoning_content: Optional[str]


class RewardModelParam(TypedDict, total=False):
    """Settings of the method reward_model."""

    hyperparameters: Optional[HyperparametersParam]


class SimpoHyperparametersParam(TypedDict, total=False):
    """Simple preference optimization (Meng et al., 2024, [arXiv 2405.14734](https://arxiv.org/abs/2405.14734)):
    as `dpo`, without a reference. The reward of an answer is beta times the mean log-probability of its
    tokens, which is what generation follows, and the preferred one must lead by gamma: the loss of a pair is
    -log sigmoid(reward of the preferred - reward of the other - gamma). Nothing holds the policy near its
    base: use few epochs, and compare with `dpo`.
    """

    beta: float
    gamma: float
    batch_size: Union[Literal["auto"], int]
    learning_rate_multiplier: Union[Literal["auto"], float]
    n_epochs: Union[Literal["auto"], int]


class SimpoParam(TypedDict, total=False):
    """Settings of the method simpo."""

    hyperparameters: Optional[SimpoHyperparametersParam]


class StreamOptionsParam(TypedDict, total=False):
    """`StreamOptions`."""

    include_usage: Optional[bool]
    include_obfuscation: Optional[bool]


class StreamSettingsParam(TypedDict, total=False):
    """`StreamSettings`."""

    include_obfuscation: Optional[bool]


class SupervisedParam(TypedDict, total=False):
    """Settings of the method supervised."""

    hyperparameters: Optional[HyperparametersParam]


class TextParam(TypedDict, total=False):
    """Settings of the method text."""

    hyperparameters: Optional[HyperparametersParam]


class _TextPartParamRequired(TypedDict):
    """`TextPart`."""

    type: Literal["text"]
    text: str


class TextPartParam(_TextPartParamRequired, total=False):
    """`TextPart`."""

    prompt_cache_breakpoint: Optional[Mapping[str, Any]]


class TextSettingsInputParam(TypedDict, total=False):
    """`TextSettings-Input`."""

    format: Optional[Mapping[str, Any]]
    verbosity: Optional[Literal["low", "medium", "high"]]


class ToolCallParam(TypedDict):
    """`ToolCall`."""

    id: str
    type: Literal["function"]
    function: FunctionCallParam


class TuningParam(TypedDict, total=False):
    """Luthier's own field `tuning`: which parameters move. The settings of the named type only."""

    type: Literal["lora", "bottleneck", "full", "ia3", "loreft", "miss", "partial", "prefix", "prompt", "vera"]
    serve_as: Optional[Literal["lora"]]
    serve_rank: Optional[int]
    serve_min_share: Optional[float]
    lora: Optional[LoraSettingsParam]
    bottleneck: Optional[BottleneckSettingsParam]
    full: Optional[Mapping[str, Any]]
    ia3: Optional[Ia3SettingsParam]
    loreft: Optional[LoreftSettingsParam]
    miss: Optional[MissSettingsParam]
    partial: Optional[PartialSettingsParam]
    prefix: Optional[PrefixSettingsParam]
    prompt: Optional[PromptSettingsParam]
    vera: Optional[VeraSettingsParam]


class VeraSettingsParam(TypedDict, total=False):
    """Vector-based random matrix adaptation (VeRA; Kopiczko et al., 2023, [arXiv
    2310.11454](https://arxiv.org/abs/2310.11454)): as `lora`, but A and B are random, frozen, and the same
    for all layers; each layer learns two vectors, y = W x + b * B (d * A dropout(x)). b begins at zero, so
    the first step starts from the base's own answers. A tenth of LoRA's trained parameters and less. The
    artifact holds A and B too: their numbers must be the same wherever it is loaded. Jobs of one base and
    seed share them in memory.
    """

    r: int
    dropout: float
    target_modules: Union[Literal["all-linear"], Sequence[str]]
    d_initial: float
    projection_seed: int


class _WandbParamRequired(TypedDict):
    """Settings of the Weights & Biases integration, as OpenAI takes them."""

    project: str


class WandbParam(_WandbParamRequired, total=False):
    """Settings of the Weights & Biases integration, as OpenAI takes them."""

    name: Optional[str]
    entity: Optional[str]
    tags: Optional[Sequence[str]]
