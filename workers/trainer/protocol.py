"""The messages between a supervisor and its trainer: one JSON object per line, over the child's stdin and stdout.

The child gets a folder and returns reports and folders. It uses no database, bucket or URL.

A seated job's folder:
    job.json            JobSpec
    train.safetensors   tokenised training rows (workers.data.tokenized)
    valid.safetensors   tokenised validation rows; absent when the job has no validation file
    resume/             a snapshot to continue from; absent at a first start
    parent/             adapter weights to start from; absent unless the job continues a tuned model
    snapshots/step-N/   written by the trainer: private state, complete once `Snapshotted` is reported
    checkpoints/step-N/ written by the trainer: adapter in PEFT's format, `head.safetensors` where the objective has
                        parameters of its own, `head.json` where they are a model's output layer, and with the job's
                        result tables about the validation file; complete once `Checkpointed` is reported. best-N/
                        instead where the job's result is an earlier step than its last. In served/ what engines load,
                        where that is another form than the one that is trained
    rollouts/step-N.json written by the trainer: RolloutRows without rewards yet; complete once `RolledOut` is
                        reported
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from service.domain.memory import DeviceMemory
from service.recipes.recipe import Recipe
from service.recipes.safeguards import Safeguards, Selection
from service.recipes.served_form import FormName, ServedForm

AGREEMENT_TOKENS = 256  # of an agreement row, at most


class JobSpec(BaseModel):
    """Everything that the result of a job depends on, besides its data and its base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    recipe: Recipe
    n_epochs: int
    batch_size: int
    learning_rate: float  # absolute: the base's for the tuning, times the multiplier
    seed: int
    snapshot_steps: int
    agreement_tokens: int = AGREEMENT_TOKENS  # of an agreement row; does not change the weights
    safeguards: Safeguards = Safeguards()
    served_form: ServedForm | None = None  # does not change the weights


class Seat(BaseModel):
    """Give the job a slot; its folder is ready."""

    type: Literal["seat"] = "seat"
    job_id: str
    folder: str


class Leave(BaseModel):
    """Take the job out of its slot at the next whole step; `snapshot` asks for one first."""

    type: Literal["leave"] = "leave"
    job_id: str
    snapshot: bool = False


class Pause(BaseModel):
    """Let the job do its next step, then take it out of its slot with a checkpoint and a snapshot of that step."""

    type: Literal["pause"] = "pause"
    job_id: str


class Reward(BaseModel):
    """The response to `RolledOut`: one number for each row, in their order. Ignored unless `step` is the job's."""

    type: Literal["reward"] = "reward"
    job_id: str
    step: int
    rewards: list[float]


class Beat(BaseModel):
    """The supervisor is running and has renewed its leases."""

    type: Literal["beat"] = "beat"


Command = Annotated[Seat | Leave | Pause | Reward | Beat, Field(discriminator="type")]


class Ready(BaseModel):
    """The base is loaded. `hashes` has weights, tokenizer and chat_template; `environment` is the fingerprint."""

    type: Literal["ready"] = "ready"
    revision: str
    hashes: dict[str, str]
    environment: dict[str, str]
    memory: DeviceMemory | None = None
    trainers: int = 1  # processes of this base that the machine has cores for


class Seated(BaseModel):
    """The job has its slot. `difference` says why a resumed run will not be bit-exact; empty when it will."""

    type: Literal["seated"] = "seated"
    job_id: str
    step: int
    total_steps: int
    difference: str = ""


class Turn(BaseModel):
    """From here to the next report of this kind, a crash is charged to this job."""

    type: Literal["turn"] = "turn"
    job_id: str


class Stepped(BaseModel):
    """One optimizer step. `metrics` has OpenAI's names (step, total_steps, train_loss, valid_loss, ...)."""

    type: Literal["stepped"] = "stepped"
    job_id: str
    step: int
    trained_tokens: int  # of the job so far
    seconds: float  # of this step, measured by the trainer
    metrics: dict[str, int | float]
    pace: dict[str, float] = Field(default_factory=dict)  # learning_rate, grad_norm, tokens_per_second (as in TRL)


class RolloutRow(BaseModel):
    """The tokens of one row that the model has sampled."""

    prompt: list[int]
    completion: list[int]


class RolloutRows(BaseModel):
    """The content of a roll-out's file."""

    rows: list[RolloutRow]


class RolledOut(BaseModel):
    """`file` (under the job's folder) holds the rows that the step after `step` learns from, once `Reward` has come.

    Until then the job takes no turn. A job that is resumed at `step` samples the same rows and reports them again.
    """

    type: Literal["rolled_out"] = "rolled_out"
    job_id: str
    step: int
    file: str


class Snapshotted(BaseModel):
    """`folder` (under the job's) holds a complete snapshot of `step`; the job may be some steps further.

    The checkpoint of that step, where there is one, was reported before.
    """

    type: Literal["snapshotted"] = "snapshotted"
    job_id: str
    step: int
    folder: str


class ScoredRow(BaseModel):
    """Tokens, and for each but the first log p(token | tokens before), in nats: the trained model's and its base's.

    Of an encoder-decoder they are what its decoder writes, start token first; `second` is what its encoder reads.

    `nudged_effects` is the difference of both once more, a rounding step of the input aside: the same effect under
    other rounding noise. Without it the format is fine enough for the noise not to matter.
    """

    ids: list[int]
    second: list[int] = []
    logprobs: list[float]
    base_logprobs: list[float] | None = None  # None: stored by a version that scored the trained model alone
    nudged_effects: list[float] | None = None


class HeadRow(BaseModel):
    """Tokens, and what the model's head returns for them; `base_values`: what it returns without the tuning."""

    ids: list[int]
    values: list[float]
    base_values: list[float]


class Chosen(BaseModel):
    """What a job's safeguards decided at its end, and by what: the step whose weights are published, and an early end.

    `best_step` is the best by `metric` of the `evaluations`, `last_value` the last one's; `without_improvement` counts
    the evaluations since the last change by more than `min_delta`.
    """

    step: int
    ended_step: int  # the last one that was trained
    total_steps: int  # as planned
    stopped: bool  # before that
    selection: Selection | None
    metric: str
    best_step: int
    best_value: float
    last_value: float
    evaluations: int
    without_improvement: int
    min_delta: float


class Forgetting(BaseModel):
    """The loss of the general text in nats per token, of the model that the job started from and of its own."""

    tokens: int
    loss_before: float
    loss_after: float


class Conversion(BaseModel):
    """What serving a checkpoint in another form costs: of the weights, and of the result's agreement rows.

    `effect` is what the training adds to an output in the mean, `difference` what the form adds to that: of tokens'
    log-probabilities in nats, or of what a head returns. `changed` is the share of tokens, sampled at temperature 1,
    that would be others.
    """

    form: FormName
    rank: int
    share: float  # of the squared norm of the weights' change
    min_share: float  # less is refused
    outputs: int = 0  # how many were compared
    effect: float = 0.0
    difference: float = 0.0
    changed: float | None = None

    @property
    def enough(self) -> bool:
        return self.share >= self.min_share


class Checkpointed(BaseModel):
    """`folder` (under the job's) holds a complete adapter; `last` for the one that is the job's result.

    `conversion` is of a job that is served in another form than it is trained; its agreement rows are that form's. The
    result has the agreement rows (`head_agreement` of a model with a head, else `agreement`), and what the safeguards
    came to. Its `step` may be earlier than the last.
    """

    type: Literal["checkpointed"] = "checkpointed"
    job_id: str
    step: int
    folder: str
    metrics: dict[str, int | float]
    last: bool
    agreement: list[ScoredRow] = []
    head_agreement: list[HeadRow] = []
    chosen: Chosen | None = None
    forgetting: Forgetting | None = None
    conversion: Conversion | None = None


class Left(BaseModel):
    """The job has no slot any more; `finished` when it trained to its end."""

    type: Literal["left"] = "left"
    job_id: str
    finished: bool


class Paused(BaseModel):
    """The job has no slot any more; the checkpoint and the snapshot of `step` were reported before."""

    type: Literal["paused"] = "paused"
    job_id: str
    step: int


class Failed(BaseModel):
    """The job cannot continue, for a reason of its own and not of the trainer's, and has left its slot."""

    type: Literal["failed"] = "failed"
    job_id: str
    code: str
    message: str
    param: str | None = None


Report = Annotated[
    Ready | Seated | Turn | Stepped | RolledOut | Snapshotted | Checkpointed | Left | Paused | Failed,
    Field(discriminator="type"),
]


@dataclass(frozen=True)
class Crashed:
    """Made by the parent, never by the child: the process ended. `guilty` when it was this job's turn."""

    job_id: str
    guilty: bool


_commands: TypeAdapter[Command] = TypeAdapter(Command)
_reports: TypeAdapter[Report] = TypeAdapter(Report)


def encode(message: BaseModel) -> bytes:
    """One line."""
    return message.model_dump_json().encode() + b"\n"


def decode_command(line: bytes) -> Command:
    return _commands.validate_json(line)


def decode_report(line: bytes) -> Report:
    return _reports.validate_json(line)
