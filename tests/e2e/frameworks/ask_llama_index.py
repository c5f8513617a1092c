"""LlamaIndex, unmodified, asks a model that is named after OpenAI's: run in its own environment by test_frameworks.py.

    ask_llama_index.py URL KEY MODEL

It looks every name up in its table of OpenAI's models, a tuned one's between the first two colons. Writes JSON: what it
read as a whole and as a stream.
"""

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

MAX_TOKENS = 64


def main(url: str, key: str, model: str) -> None:
    llm = OpenAI(model=model, api_base=url, api_key=key, max_tokens=MAX_TOKENS, temperature=0, max_retries=0)
    assert llm.metadata.context_window > MAX_TOKENS  # raises for a name that it does not know
    question = [ChatMessage(role="user", content="Hello")]
    said = {
        "whole": llm.chat(question).message.content,
        "stream": "".join(chunk.delta or "" for chunk in llm.stream_chat(question)),
    }
    sys.stdout.write(json.dumps({"llama-index": said}))


if __name__ == "__main__":
    main(*sys.argv[1:])
