"""Conversations of every kind, and a base's text around a real template: what is its own is the template alone.

The tokenizer is a small one of ours to which the template's special tokens are added; the ends are those that the
published generation_config.json of the family names.
"""

import re
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText

_SPECIAL = re.compile(r"<[|｜][^<>\s{}'\"]{1,40}?[|｜]?>|<[a-z_]{1,30}\|>|<(?:start|end)_of_\w+>|</?s>|<eos>|<bos>")
_GEMMA_4 = ("<eos>", "<turn|>", "<|tool_response>")
# beginning of the family's name -> its ends, the end of text first
_ENDS: dict[str, tuple[str, ...]] = {
    "": ("<|im_end|>",),
    "cohere": ("<|END_OF_TURN_TOKEN|>",),
    "deepseek": ("<｜end▁of▁sentence｜>",),
    "diffusion_gemma": _GEMMA_4,
    "gemma": ("<eos>", "<end_of_turn>"),
    "gemma4": _GEMMA_4,
    "glm4moe": ("<|endoftext|>", "<|user|>", "<|observation|>"),
    "gptoss": ("<|return|>", "<|call|>"),
    "idefics3": ("<end_of_utterance>",),
    "llama3": ("<|eot_id|>", "<|eom_id|>"),
    "llava": ("</s>",),
    "muse": ("<|eot|>",),
    "phi3": ("<|endoftext|>", "<|end|>"),
    "smolvlm": ("<end_of_utterance>",),
}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": '{"shelf": 2}'}}
_SHELF = {"type": "integer", "description": "Its number."}
_PARAMETERS = {"type": "object", "properties": {"shelf": _SHELF}, "required": ["shelf"]}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Looks at a shelf.", "parameters": _PARAMETERS},
}
USER = {"role": "user", "content": "How long does the glue dry?"}
ANSWER = {"role": "assistant", "content": "A whole day."}
MORE = [{"role": "user", "content": "And in winter?"}, {"role": "assistant", "content": "Two days."}]

# kind -> a row of it
ROWS: dict[str, dict[str, Any]] = {
    "plain": {"messages": [USER, ANSWER]},
    "multi-turn": {"messages": [USER, ANSWER, *MORE]},
    "system": {"messages": [{"role": "system", "content": "You know guitars."}, USER, ANSWER]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, USER, ANSWER]},
    "tools": {
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call00001", "content": "Two guitars."},
            {"role": "assistant", "content": "There are two."},
        ],
        "tools": [TOOL],
    },
    "reasoning": {"messages": [USER, ANSWER | {"reasoning_content": "Hide glue needs a day."}]},
    "inline": {
        "messages": [USER, ANSWER | {"content": "<think>\nHide glue needs a day.\n</think>\n\nA whole day."}],
    },
}


def family_text(name: str, template: str) -> BaseText:
    """A base of that family."""
    ends = _ENDS[max((prefix for prefix in _ENDS if name.startswith(prefix)), key=len)]
    begin = "<bos>" if "gemma" in name else "<|begin|>"
    backend = Tokenizer.from_str(tokenizer_for("chatml").backend_tokenizer.to_str())
    special = dict.fromkeys([*_SPECIAL.findall(template), *ends, begin])
    backend.add_tokens([AddedToken(token, special=True) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token=ends[0], chat_template=template
    )
    return BaseText(tokenizer, frozenset(tokenizer.convert_tokens_to_ids(list(ends))))
