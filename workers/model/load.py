"""The base model in memory: loaded once per process, frozen, with the hashes that identify it and what it computed for
rows that may come again.

Does not depend on jobs, tunings or engines; the trainer and the embedded engine both load their base here.
"""

import hashlib
import json
import platform
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import structlog
import torch
from huggingface_hub import ResolvedRevision
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import resolve_revision

from service.recipes.base import Base
from service.recipes.base_folder import folder_problems
from service.recipes.tasks import KINDS, BaseKind
from service.recipes.tuning import BaseSize
from workers.data.base_text import BaseText
from workers.model import nf4, segments
from workers.model.kind import kind_of, load_model
from workers.model.output_layer import plain_output_layer
from workers.model.positions import check_decodes_together
from workers.model.rotary import fix_frequencies

log = structlog.get_logger()
Tokenizer = PreTrainedTokenizerFast
QUANTIZATION = "quantization"  # among the hashes of a base whose weights are packed: how they are
WEIGHTS = ("weights", QUANTIZATION)  # the hashes of what adapters were trained on
KEPT_BYTES = 64 * 1024 * 1024  # of states
_PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class LoadedBase:
    """A frozen model in eval mode, on its device, with its tokenizer."""

    public_source: str  # the base's name in an adapter's files: never a path of this machine
    model: PreTrainedModel
    tokenizer: Tokenizer
    revision: str  # the hub's commit; for a folder, the beginning of a hash of `hashes`
    hashes: dict[str, str]  # "weights" (of the source), "tokenizer", "chat_template" -> sha256; QUANTIZATION, if any
    device: torch.device
    text: BaseText
    kind: BaseKind = "causal"

    @property
    def quantization(self) -> str | None:
        """How the weights of its linear layers are packed."""
        return self.hashes.get(QUANTIZATION)

    @property
    def pad_id(self) -> int:
        """A token for masked positions; results do not depend on which one it is."""
        padding = self.tokenizer.pad_token_id
        return padding if isinstance(padding, int) and padding < self.text.num_embeddings else 0

    @cached_property
    def unpacked_because(self) -> str:
        """Why rows are padded and not packed for it; empty: they are packed. Tried once, while no tuning is active."""
        if self.kind != "causal":
            return "rows are packed for bases that read from left to right only"
        return segments.refusal(self.model)

    @cached_property
    def kept_states(self) -> "KeptStates":
        """What it computed without a tuning for rows that may come again."""
        return KeptStates()

    @cached_property
    def has_plain_output_layer(self) -> bool:
        """Whether its logits are those of one linear layer. Tried once, while no tuning is active."""
        return self.kind == "causal" and plain_output_layer(self.model) is not None


class KeptStates:
    """What a base computed for some rows, kept for the next job that has the same ones: `limit_bytes` at most.

    Jobs on one file, as of a search for good settings or of a pipeline that trains daily, are announced by the same
    rows, and without a tuning a base gives them the same numbers each time. Kept are the states before the output
    layer, states_KH of K places and H hidden, which are small; the layer is applied again. The longest unused are
    dropped.
    """

    def __init__(self, limit_bytes: int = KEPT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        return sum(states_KH.nbytes for states_KH in self._kept.values())

    def of(self, rows: Sequence[Sequence[int]], compute: Callable[[], Tensor]) -> Tensor:
        """The states of these rows in one pass, which no caller changes; `compute` is called where they are unknown.

        The number of threads decides last bits, so states of another number are not taken.
        """
        key = _rows_key(rows)
        states_KH = self._kept.pop(key, None)
        if states_KH is None:
            states_KH = compute()
        self._kept[key] = states_KH
        while len(self._kept) > 1 and self.num_bytes > self._limit_bytes:
            self._kept.popitem(last=False)
        return states_KH


def _rows_key(rows: Sequence[Sequence[int]]) -> bytes:
    found = hashlib.sha256(np.array([torch.get_num_threads(), *map(len, rows)], dtype=np.int64).tobytes())
    for row in rows:
        found.update(np.array(row, dtype=np.int64).tobytes())
    return found.digest()


class BaseUnusable(ValueError):
    """The base cannot be loaded; the message is one sentence that says which base and why."""


def load_or_explain(base: Base, device: torch.device) -> LoadedBase:
    """`load_base` for the start of a process: every failure is a sentence, not a traceback. Raises BaseUnusable."""
    if problems := folder_problems(base):
        raise BaseUnusable(" ".join(problems))
    try:
        return load_base(base, device)
    except Exception as error:  # transformers raises many kinds for a folder that holds no model of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise BaseUnusable(
            f"The base '{base.id}' cannot be loaded from {base.source} ({type(error).__name__}): {reason}"
        ) from error


def load_base(base: Base, device: torch.device) -> LoadedBase:
    """Loads from a folder or from the hub (safetensors only, no remote code). Raises OSError or ValueError."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # logs are events, one a line
    commit = commit_of(base)
    check_kind(base, AutoConfig.from_pretrained(base.source, revision=commit, trust_remote_code=False))
    options = {"dtype": getattr(torch, base.dtype), "trust_remote_code": False, "use_safetensors": True}
    model = load_model(base.kind, base.source, commit, options)
    fix_frequencies(model, base.context_tokens)
    model.requires_grad_(False)  # in eval mode already, as transformers loads it
    tokenizer = _load_tokenizer(base, commit)
    hashes = {
        "weights": weights_digest(model),
        "tokenizer": _sha256(tokenizer.backend_tokenizer.to_str()),
        "chat_template": _sha256(json.dumps(tokenizer.chat_template, sort_keys=True)),
    }
    revision = commit or _sha256(json.dumps(hashes, sort_keys=True))[:40]
    if base.quantization is not None:  # packed on the CPU: the full size never has to fit a GPU
        nf4.check_device(device)
        nf4.quantise(model)
        hashes[QUANTIZATION] = base.quantization
    torch.nn.Module.to(model, device)
    generation = None if base.kind == "encoder" else model.generation_config  # an encoder writes no text
    start_id = _decoder_start(base.kind, model.config, generation)
    if start_id is not None:
        check_decodes_together(model, start_id)
    text = BaseText(tokenizer, _end_ids(generation), _num_embeddings(model), start_id)
    _warn_of_unknown_tokens(base, text)
    return LoadedBase(
        public_source=base.public_source,
        model=model,
        tokenizer=tokenizer,
        revision=revision,
        hashes=hashes,
        device=device,
        text=text,
        kind=base.kind,
    )


def load_text(base: Base) -> BaseText:
    """The text side of a base, without its weights. Raises OSError or ValueError."""
    commit = commit_of(base)
    config = AutoConfig.from_pretrained(base.source, revision=commit, trust_remote_code=False)
    try:
        generation = GenerationConfig.from_pretrained(base.source, revision=commit or "main")
    except OSError:  # no such file: settings from the config, as transformers does for a model
        generation = GenerationConfig.from_model_config(config)
    tokenizer = _load_tokenizer(base, commit)
    start_id = _decoder_start(base.kind, config, generation)
    return BaseText(tokenizer, _end_ids(generation), config.get_text_config().vocab_size, start_id)


def check_kind(base: Base, config: PreTrainedConfig) -> None:
    """Raises ValueError where the catalogue says another kind than the base's own config."""
    if (own := kind_of(config)) != base.kind:
        raise ValueError(
            f'its config.json is of {KINDS[own]}: write kind = "{own}" in the catalogue, not "{base.kind}"'
        )


def base_size(base: Base) -> BaseSize:
    """The size of the base, from its config.json alone. Raises OSError or ValueError."""
    config = AutoConfig.from_pretrained(base.source, revision=commit_of(base), trust_remote_code=False)
    text = config.get_text_config()
    return BaseSize(hidden_size=text.hidden_size, num_layers=text.num_hidden_layers)


def commit_of(base: Base) -> str | None:
    """The commit that the revision (empty: the default branch) points to; None for a folder.

    Resolved once and used for every file, so that a change on the hub during loading cannot mix two commits. Raises
    OSError for what is on no hub.
    """
    if Path(base.source).is_dir():
        return None
    revision = resolve_revision(base.source, base.revision or None)
    if not isinstance(revision, ResolvedRevision):
        raise OSError(
            f"The base '{base.id}' is neither a folder nor a repository on the hub: {base.source} {base.revision}"
        )
    return revision.resolved


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over every weight's name, type, shape and bytes. Valid only while no tuning is attached."""
    return tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def choose_device(setting: str) -> torch.device:
    """The device of the setting `auto`, `cpu` or `cuda`."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def environment(device: torch.device, quantization: str | None = None) -> dict[str, str]:
    """Everything outside a job that affects the bits of its results: equal environments give equal results."""
    packages = ("torch", "transformers", "peft", *(() if quantization is None else (nf4.LIBRARY,)))
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
        **{package: _version(package) for package in packages},
    }


@cache
def _version(package: str) -> str:
    """Of what this process has loaded; read from the installed files once."""
    return version(package)


def _end_ids(generation: GenerationConfig | None) -> frozenset[int]:
    """The tokens that end an answer by the base's own settings."""
    named = generation.eos_token_id if generation else None
    ends = named if isinstance(named, list) else [named]
    return frozenset(id for id in ends if id is not None)


def _decoder_start(kind: BaseKind, config: PreTrainedConfig, generation: GenerationConfig | None) -> int | None:
    """The token with which a decoder beside an encoder begins. Raises ValueError where the base does not say it."""
    if kind != "encoder-decoder":
        return None
    named = generation.decoder_start_token_id if generation else None, config.to_dict().get("decoder_start_token_id")
    start_id = next((id for id in named if isinstance(id, int)), None)
    if start_id is None:
        raise ValueError("its config.json has no decoder_start_token_id, with which its decoder would begin")
    return start_id


def _num_embeddings(model: PreTrainedModel) -> int:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    return embedding.num_embeddings


def _warn_of_unknown_tokens(base: Base, text: BaseText) -> None:
    """Logs that rows and requests with such a token will be refused, before the first of them is."""
    if unknown := text.unknown_ids:
        log.warning(
            "base.unknown_tokens", base=base.id, count=len(unknown), first=unknown[0], known=text.num_embeddings
        )


def _load_tokenizer(base: Base, commit: str | None) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(base.source, revision=commit, trust_remote_code=False)
    if not isinstance(tokenizer, Tokenizer):
        raise OSError(f"The base '{base.id}' has no tokenizer.json: {base.source}")
    return tokenizer


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
