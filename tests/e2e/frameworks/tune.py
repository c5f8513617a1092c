"""Frameworks that tune models of OpenAI's names only, unmodified: run in their own environment by test_frameworks.py.

    tune.py URL KEY ALIAS FILE

ALIAS is an OpenAI-looking name of a base, FILE has rows of chat. DSPy and LiteLLM each tune a model and ask it. Writes
JSON: for each framework the name of its model, and what this said.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "OPENAI_BASE_URL": sys.argv[1],
    "OPENAI_API_KEY": sys.argv[2],
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DO_NOT_TRACK": "1",
    "DSPY_CACHEDIR": tempfile.mkdtemp(prefix="luthier-dspy-"),
    "DSPY_FINETUNEDIR": tempfile.mkdtemp(prefix="luthier-dspy-"),
}

import dspy
import litellm
from dspy.clients.openai import OpenAIProvider
from dspy.clients.utils_finetune import TrainDataFormat

ALIAS, FILE = sys.argv[3:]
QUESTION = [{"role": "user", "content": "Hello"}]
SETTINGS = {"n_epochs": 3}
POLL_SECONDS = 0.5
SECONDS = 180.0
MAX_TOKENS = 64


def dspy_tuned(rows: list[dict[str, Any]]) -> dict[str, str]:
    """`LM.finetune`, whose result is a language model. Only the pause between its polls is another."""
    OpenAIProvider.wait_for_job.__defaults__ = (POLL_SECONDS,)
    lm = dspy.LM(f"openai/{ALIAS}", max_tokens=MAX_TOKENS, temperature=0, cache=False)
    job = lm.finetune(rows, TrainDataFormat.CHAT, SETTINGS)
    tuned = job.result(timeout=SECONDS)
    if isinstance(tuned, Exception):
        raise tuned
    return {"model": str(tuned.model), "said": tuned("Hello")[0]}


async def litellm_tuned(file: Path) -> dict[str, str]:
    """`create_fine_tuning_job`, and a completion by the name of its model."""
    with file.open("rb") as stream:
        stored = await litellm.acreate_file(file=stream, purpose="fine-tune", custom_llm_provider="openai")
    job = await litellm.acreate_fine_tuning_job(
        model=ALIAS, training_file=stored.id, hyperparameters=SETTINGS, custom_llm_provider="openai"
    )
    deadline = time.monotonic() + SECONDS
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, job.status
        await asyncio.sleep(POLL_SECONDS)
        job = await litellm.aretrieve_fine_tuning_job(fine_tuning_job_id=job.id, custom_llm_provider="openai")
    model = str(job.fine_tuned_model)
    response = await litellm.acompletion(model=model, messages=QUESTION, temperature=0, max_tokens=MAX_TOKENS)
    return {"model": model, "said": response.choices[0].message.content}


def main() -> None:
    rows = [json.loads(line) for line in Path(FILE).read_text(encoding="utf-8").splitlines()]
    printed, sys.stdout = sys.stdout, sys.stderr  # DSPy prints how far it is
    found = {"dspy": dspy_tuned(rows), "litellm": asyncio.run(litellm_tuned(Path(FILE)))}
    printed.write(json.dumps(found))


if __name__ == "__main__":
    main()
