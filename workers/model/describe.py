"""What the catalogue should say about a base, found out when it is added.

`luthier-worker describe` prints it as JSON for `luthierd bases add`. Most is read from the base's own files: config,
tokenizer, model card. Of a hub's base no weights are fetched here. A GGUF file becomes the folder that trainers and
engines load: adapters are trained on plain weights, so the file's blocks are dequantised, once.

Whether this processor computes the base faster in bfloat16 is measured on the base's own shapes, since a processor that
can is no proof: torch 2.13 takes a kernel of one thread for some bfloat16 shapes on processors with avx512_bf16 and
without AMX, and a step of 8 rows of 32 tokens took 13.8 s, and 1.5 s in float32. So a shape that is slow decides
against it. Shapes: N tokens, I inputs, O outputs.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from huggingface_hub import metadata_load
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from service.recipes.base import Base, Serving
from service.recipes.base_description import BaseDescription, Dtype
from service.recipes.base_folder import folder_problems
from workers.model.kind import kind_of
from workers.model.load import BaseUnusable, commit_of, load_text

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
LICENCE_LETTERS = 100
GGUF_MISSING = "needs the package gguf: install `luthier[gguf]`, or `pip install gguf`"
# How both number formats are measured:
LEAST_HIDDEN = 512  # of smaller bases most of a step is no product of matrices
TOKENS = (8, 32, 104, 256, 416, 1024)
LIMIT_OPERATIONS = 8e9  # of one product: a large base is measured with fewer tokens
GAIN = 0.8  # of float32's time, at most, over all shapes
SLOWEST = 1.5  # times float32's, of no shape
REPETITIONS = 3  # the least of them counts, in turns with float32
LIMIT_SECONDS = 60.0  # after which the shapes so far decide

Stopwatch = Callable[[tuple[int, int, int], torch.dtype], float]


def describe(source: str, device: torch.device, folder: Path) -> BaseDescription:
    """`source`: a hub id, or the absolute path of a folder or of a GGUF file, which becomes `folder`.

    Raises BaseUnusable, in one sentence.
    """
    try:
        return _described(source, device, folder)
    except BaseUnusable:
        raise
    except ImportError as error:
        raise BaseUnusable(f"{source} {GGUF_MISSING}") from error
    except Exception as error:  # as many kinds as a base that is loaded raises
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise BaseUnusable(f"{source} cannot be read as a base ({type(error).__name__}): {reason}") from error


def longest_context(config: PreTrainedConfig) -> int | None:
    """How many tokens the model reads at most; None where it names no limit."""
    text = config.get_text_config()
    name = text.attribute_map.get("max_position_embeddings", "max_position_embeddings")  # GPT-2 says n_positions
    found = text.to_dict().get(name)
    return found if isinstance(found, int) else None


def _described(source: str, device: torch.device, folder: Path) -> BaseDescription:
    licence = None
    if source.endswith(".gguf"):
        with _parsed_once():
            licence = _named_licence(Path(source))
            _dequantise(Path(source), folder, torch.float32 if device.type == "cpu" else torch.bfloat16)
        source = str(folder)
    base = Base(id="described", source=source, context_tokens=16, serving=Serving(tunings=frozenset()))
    if problems := folder_problems(base):
        raise BaseUnusable(" ".join(problems))
    commit = commit_of(base)
    base = base.model_copy(update={"revision": commit or ""})
    config = AutoConfig.from_pretrained(source, revision=commit, trust_remote_code=False)
    return BaseDescription(
        source=source,
        revision=base.revision,
        kind=kind_of(config),
        dtype=_dtype(config, device),
        device=device.type,
        context_tokens=longest_context(config),
        chat_template=bool(load_text(base).tokenizer.chat_template),
        licence=licence or _licence(source, commit),
    )


def _dtype(config: PreTrainedConfig, device: torch.device) -> Dtype:
    """float32 for weights that were stored so, and on a CPU that computes the base's shapes no faster in bfloat16."""
    stored = config.get_text_config().dtype or config.dtype
    if stored == torch.float32:
        return "float32"
    return "bfloat16" if device.type != "cpu" or bfloat16_is_faster(config) else "float32"


def _licence(source: str, commit: str | None) -> str | None:
    """By the model card's front matter, else the first line of the licence's own file."""
    card = _file(source, commit, "README.md")
    try:
        metadata = (metadata_load(card) if card else None) or {}
    except (ValueError, yaml.YAMLError):  # a card that somebody wrote by hand
        metadata = {}
    if isinstance(named := metadata.get("license_name") or metadata.get("license"), str):
        return named
    for name in LICENCE_FILES:
        if file := _file(source, commit, name):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip()[:LICENCE_LETTERS] for line in lines if line.strip()), None)
    return None


def _file(source: str, commit: str | None, name: str) -> Path | None:
    """One file of the folder or of the hub's commit."""
    found = cached_file(source, name, revision=commit, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Inside, a file is parsed at its first reading. Raises ImportError without the package gguf.

    transformers parses it again for the tokenizer, for the config and for the weights, token by token, and lists the
    names of all tensors again for each module: 135 million weights take 10 CPU seconds so, and 25 otherwise.
    """
    import gguf  # noqa: PLC0415  optional

    plain = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, made in plain.items():
            setattr(gguf, name, cache(made))
        yield
    finally:
        for name, made in plain.items():
            setattr(gguf, name, made)


def _dequantise(file: Path, folder: Path, dtype: torch.dtype) -> None:
    """Writes `folder`, whole or not at all: plain weights in safetensors, config and tokenizer.

    Raises OSError, ValueError, or ImportError without the package gguf.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as beside:
        written = Path(beside) / "base"
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer.save_pretrained(written)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype
        )
        model.save_pretrained(written)
        written.rename(folder)


def _named_licence(file: Path) -> str | None:
    """The licence that the file names, such as apache-2.0. Raises ImportError without the package gguf."""
    from gguf import GGUFReader  # noqa: PLC0415  optional

    field = GGUFReader(str(file)).get_field("general.license")
    return None if field is None else str(field.contents())


@dataclass(frozen=True)
class _Measured:
    """Seconds of one shape."""

    float32: float
    bfloat16: float


def bfloat16_is_faster(config: PreTrainedConfig, seconds: Stopwatch | None = None) -> bool:
    """Over the products of the base's blocks, forward and backward. `seconds` times one; without it, this processor."""
    hidden = config.get_text_config().hidden_size
    if hidden < LEAST_HIDDEN:
        return False
    wide = config.get_text_config().to_dict().get("intermediate_size") or 4 * hidden
    measured = list(_measured([(hidden, hidden), (wide, hidden), (hidden, wide)], seconds or product_seconds))
    return _chooses_bfloat16(measured)


def _chooses_bfloat16(measured: Sequence[_Measured]) -> bool:
    """Whether all of them together are enough faster, and none is much slower."""
    if not measured or any(one.bfloat16 > SLOWEST * one.float32 for one in measured):
        return False
    return sum(one.bfloat16 for one in measured) <= GAIN * sum(one.float32 for one in measured)


def _measured(layers: Sequence[tuple[int, int]], seconds: Stopwatch) -> Iterator[_Measured]:
    begin = time.monotonic()
    for num_tokens in TOKENS:
        for num_outputs, num_inputs in layers:
            shape = (num_tokens, num_inputs, num_outputs)
            if 2.0 * num_tokens * num_inputs * num_outputs > LIMIT_OPERATIONS:
                continue
            if time.monotonic() - begin > LIMIT_SECONDS:
                return
            pairs = [(seconds(shape, torch.float32), seconds(shape, torch.bfloat16)) for _ in range(REPETITIONS)]
            yield _Measured(*map(min, zip(*pairs, strict=True)))


def product_seconds(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """Of a linear layer's output and of its input's gradient."""
    num_tokens, num_inputs, num_outputs = shape
    x_NI = torch.ones(num_tokens, num_inputs, dtype=dtype)
    weight_OI = torch.ones(num_outputs, num_inputs, dtype=dtype)
    begin = time.perf_counter()
    y_NO = torch.nn.functional.linear(x_NI, weight_OI)
    torch.mm(y_NO, weight_OI)
    return time.perf_counter() - begin
