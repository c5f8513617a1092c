"""An adapter that was trained elsewhere, looked at before anybody may call it: `python -m ... FOLDER`.

Its configuration and tensors are checked against the base, then a fixed text is scored with it and without it: what an
engine is compared with later. Reads `order.json` and `sent/`, writes `artifact/` and `result.json`.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from service.domain.errors import InvalidRequest, JobError
from service.recipes.base import Base
from service.recipes.tuning import check_servable
from service.recipes.tunings.lora import LoraSettings
from workers.data.general_text import general_ids
from workers.model.load import LoadedBase, environment
from workers.trainer.errands import Examined, ExamineOrder, ExamineResult
from workers.trainer.process import agreement
from workers.trainer.process.errand import carry_out, loaded_base, result_of
from workers.trainer.protocol import AGREEMENT_TOKENS, ScoredRow
from workers.tunings.base import AdapterMismatch
from workers.tunings.files import WEIGHTS, read_config, read_weights, write_adapter
from workers.tunings.foreign_lora import settings_of_foreign
from workers.tunings.lora import LoraTuning

FLOATS = frozenset({"F32", "F16", "BF16"})  # as safetensors names them
ADAPTER = "imported"


def examine(order: ExamineOrder, folder: Path) -> ExamineResult:
    """The adapter in `folder / "sent"`; cheap checks come before the base is loaded."""
    sent = folder / "sent"

    def task() -> ExamineResult:
        settings = _settings(order.base, sent)
        _check_types(sent)
        return ExamineResult(found=_fit(order.base, loaded_base(order), settings, sent, folder / "artifact"))

    return result_of(ExamineResult, task)


def _settings(base: Base, sent: Path) -> LoraSettings:
    try:
        settings = settings_of_foreign(read_config(sent))
        check_servable(base, settings)
    except (AdapterMismatch, InvalidRequest) as error:
        raise _refused(str(error)) from error
    return settings


def _check_types(sent: Path) -> None:
    """Of the tensors, before any is read. Raises JobError."""
    try:
        with safe_open(sent / WEIGHTS, "pt") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                if (dtype := file.get_slice(name).get_dtype()) not in FLOATS:
                    raise _refused(f"'{name[:200]}' is of the type {dtype}; send float32, float16 or bfloat16.")
    except (SafetensorError, FileNotFoundError) as error:
        raise _refused(f"{WEIGHTS} is no safetensors file, or damaged.") from error


def _fit(base: Base, loaded: LoadedBase, settings: LoraSettings, sent: Path, artifact: Path) -> Examined:
    """Attaches the adapter, scores, and writes its artifact. Raises JobError."""
    tuning = LoraTuning(loaded.model, ADAPTER, settings)
    hashes, revision = loaded.hashes, loaded.revision
    try:
        tensors = read_weights(sent)
        tuning.attach()
        tuning.load(sent)
    except (AdapterMismatch, JobError) as error:
        raise _refused(str(error)) from error
    rows = score(base, loaded, tuning)
    if not any(effect for row in rows for effect in agreement.effects(row)):
        raise _refused("It changes nothing: with it, a fixed text has the same log-probabilities as without.")
    artifact.mkdir()
    write_adapter(artifact, tuning.saved_config(base.public_source), tensors)
    return Examined(
        rows=rows,
        tuning=settings.stored(),
        revision=revision,
        hashes=hashes,
        environment=environment(loaded.device, loaded.quantization),
    )


def score(base: Base, loaded: LoadedBase, tuning: LoraTuning) -> list[ScoredRow]:
    """A fixed text's tokens with the adapter and without it: more of them where the effect is small."""
    limit = max(2, min(AGREEMENT_TOKENS, base.context_tokens - 1))
    rows: list[ScoredRow] = []
    tokens, energy = 0, 0.0
    for ids in general_ids(loaded.text, limit):
        if tokens + len(ids) > agreement.LIMIT_TOKENS:
            break
        row = _score(loaded.model, tuning, ids)
        if agreement.is_coarse(loaded.model.dtype):
            with agreement.nudged(loaded.model):
                aside = _score(loaded.model, tuning, ids)
            row = row.model_copy(update={"nudged_effects": agreement.effects(aside)})
        if not _finite(row):
            raise _refused("With it, the base computes values that are not finite numbers.")
        rows.append(row)
        tokens += len(ids) - 1
        energy += sum(effect**2 for effect in agreement.effects(row))
        if tokens >= agreement.ENOUGH_TOKENS and energy >= agreement.ENOUGH_EFFECT:
            break
    return rows


@torch.no_grad()
def _score(model: PreTrainedModel, tuning: LoraTuning, ids: list[int]) -> ScoredRow:
    ids_1T = torch.tensor([ids])

    def logprobs() -> torch.Tensor:
        logits_TV: torch.Tensor = model(input_ids=ids_1T, use_cache=False).logits[0, :-1]
        return logits_TV.float().log_softmax(dim=-1)

    base_KV = logprobs()
    tuning.activate()
    try:
        tuned_KV = logprobs()
    finally:
        tuning.deactivate()
    return agreement.scored(agreement.Candidate(ids), tuned_KV, base_KV)


def _finite(row: ScoredRow) -> bool:
    return bool(torch.tensor(row.logprobs).isfinite().all())


def _refused(reason: str) -> JobError:
    return JobError("invalid_adapter", f"The adapter cannot be imported: {reason}", "file")


if __name__ == "__main__":
    carry_out(ExamineOrder, examine)
