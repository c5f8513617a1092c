"""What the files of a base say: context, dtype, template, licence; a GGUF file becomes a folder that trains."""

import json
from pathlib import Path

import gguf
import huggingface_hub.constants
import pytest
import torch
from gguf import GGUFReader, GGUFWriter, TokenType
from transformers import LlamaForCausalLM

from service.recipes.base import Base
from service.recipes.base_description import entry
from tests.given.tiny_models import CONTEXT_TOKENS, VOCABULARY, make_tiny_base
from workers.model.describe import describe
from workers.model.load import BaseUnusable, load_base

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return make_tiny_base(tmp_path / "tiny", dtype="bfloat16")


def test_a_folder_is_described_by_its_files(base: Base, tmp_path: Path) -> None:
    folder = Path(base.source)
    found = describe(base.source, CPU, tmp_path / "unused")
    assert (found.source, found.revision, found.context_tokens) == (base.source, "", CONTEXT_TOKENS)
    assert (found.dtype, found.chat_template, found.licence) == ("float32", True, None)
    assert describe(base.source, torch.device("cuda"), tmp_path).dtype == "float32"  # as its weights are stored
    (folder / "LICENSE").write_text("\n  The Example Licence\n\nmore")
    assert describe(base.source, CPU, tmp_path).licence == "The Example Licence"
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: example-1\n---\n# Model\n")
    assert describe(base.source, CPU, tmp_path).licence == "example-1"
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert describe(base.source, CPU, tmp_path).licence == "The Example Licence"


def test_a_hubs_base_is_pinned_to_the_commit_that_was_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is its library's own cache: a branch's name leads to a commit, a commit to files."""
    repository = tmp_path / "models--acme--tiny"
    make_tiny_base(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = describe("acme/tiny", CPU, tmp_path / "unused")
    assert (found.revision, found.context_tokens) == (COMMIT, CONTEXT_TOKENS)
    assert (entry(found, "tiny").source, entry(found, "tiny").revision) == ("acme/tiny", COMMIT)


def test_a_context_that_is_called_otherwise_is_found(base: Base, tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_positions": 512, "vocab_size": VOCABULARY}
    (Path(base.source) / "config.json").write_text(json.dumps(config))
    assert describe(base.source, CPU, tmp_path).context_tokens == 512


def test_a_folder_without_a_template_is_described_so(base: Base, tmp_path: Path) -> None:
    settings = Path(base.source) / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": None}))
    assert describe(base.source, CPU, tmp_path).chat_template is False


def test_a_folder_that_is_not_whole_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BaseUnusable, match=r"has no config\.json"):
        describe(str(tmp_path), CPU, tmp_path / "unused")


def test_a_gguf_file_becomes_a_folder_with_the_same_weights(base: Base, tmp_path: Path) -> None:
    file = write_gguf(base, tmp_path / "small.gguf")
    found = describe(str(file), CPU, tmp_path / "bases" / "small")
    assert (found.source, found.licence) == (str(tmp_path / "bases" / "small"), "apache-2.0")
    assert (found.context_tokens, found.chat_template) == (CONTEXT_TOKENS, True)
    made = load_base(entry(found, "small"), CPU)
    given = LlamaForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    ids = torch.arange(6, 40)[None]
    torch.testing.assert_close(made.model(ids).logits, given(ids).logits)
    assert [path.name for path in (tmp_path / "bases").iterdir()] == ["small"]


def test_a_gguf_file_is_parsed_once(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    class Counted(GGUFReader):
        def __init__(self, path: str) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    file = write_gguf(base, tmp_path / "small.gguf")
    describe(str(file), CPU, tmp_path / "bases" / "small")
    assert parsed == [str(file)]
    assert gguf.GGUFReader is Counted, "whoever reads a file afterwards parses it"


def test_half_a_gguf_file_is_one_sentence_and_leaves_nothing(base: Base, tmp_path: Path) -> None:
    file = write_gguf(base, tmp_path / "small.gguf")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BaseUnusable, match=r"small.gguf cannot be read as a base"):
        describe(str(file), CPU, tmp_path / "bases" / "small")
    assert not (tmp_path / "bases" / "small").exists()


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "model.layers": "blk",
}


def write_gguf(base: Base, file: Path) -> Path:
    """The base as llama.cpp writes it: q and k have the halves of each head's rotation beside each other."""
    model = LlamaForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    config = model.config
    tokenizer = json.loads((Path(base.source) / "tokenizer.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer = GGUFWriter(file, "llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token, _ in vocabulary])
    writer.add_token_scores([0.0] * len(vocabulary))  # of which follows that no two tokens merge
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(json.loads((Path(base.source) / "tokenizer_config.json").read_text())["chat_template"])
    for name, tensor in model.state_dict().items():
        written = name
        for old, new in NAMES.items():
            written = written.replace(old, new)
        if "attn_q" in written or "attn_k" in written:
            heads = config.num_attention_heads if "attn_q" in written else config.num_key_value_heads
            halves = tensor.reshape(heads, 2, -1, tensor.shape[-1])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(written, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(GGUFReader(file).tensors) == len(model.state_dict())
    return file
