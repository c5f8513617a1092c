"""The whole journey with the official SDK: a file, a job, a tuned answer.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
    python examples/client.py

The same lines work with any service of OpenAI's API: Luthier changes the base URL and the key, nothing else.
"""

import time
from pathlib import Path

from openai import OpenAI

ROWS = Path(__file__).parent / "demo" / "training.jsonl"

client = OpenAI()
with ROWS.open("rb") as stream:
    training_file = client.files.create(file=stream, purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="luthier-tiny",
    training_file=training_file.id,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 8}}},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    print(job.id, job.status)
if job.fine_tuned_model is None:
    raise SystemExit(job.error.message if job.error else job.status)

question = [{"role": "user", "content": "Do you post instruments to Norway?"}]
for model in (job.model, job.fine_tuned_model):
    answer = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=16)
    print(f"{model}: {answer.choices[0].message.content}")
