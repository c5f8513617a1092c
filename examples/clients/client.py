"""The whole journey with the official SDK: a file, a job, a tuned answer, and what it made deleted again.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
    python examples/clients/client.py

The same lines work with any service of OpenAI's API: Luthier changes the base URL and the key. Only the stream of
events is its own; elsewhere, poll `client.fine_tuning.jobs.retrieve`.
"""

import base64
import time
from pathlib import Path

from openai import APIConnectionError, OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

ROWS = Path(__file__).parents[1] / "demo" / "training.jsonl"
ENDED = ("succeeded", "failed", "cancelled")

client = OpenAI()
with ROWS.open("rb") as stream:
    training_file = client.files.create(file=stream, purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="luthier-tiny",
    training_file=training_file.id,
    suffix="python",
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 8}}},
)

seen: dict[str, str] = {}  # the header that continues after the last event when the connection breaks
while job.status not in ENDED:
    try:
        events = client.get(
            f"/fine_tuning/jobs/{job.id}/events",
            cast_to=FineTuningJobEvent,
            stream=True,
            stream_cls=Stream[FineTuningJobEvent],
            options={"params": {"stream": True}, "headers": seen},
        )
        for event in events:
            seen = {"Last-Event-ID": event.id}
            print(event.message, end="    \r" if event.type == "metrics" else "\n", flush=True)
    except APIConnectionError:
        time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
if job.fine_tuned_model is None:
    raise SystemExit(job.error.message if job.error else job.status)

question = [{"role": "user", "content": "Do you post instruments to Norway?"}]
for model in (job.model, job.fine_tuned_model):
    answer = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=16)
    print(f"{model}: {answer.choices[0].message.content}")

print("models:", *(model.id for model in client.models.list()))
print("checkpoints:", *(at.step_number for at in client.fine_tuning.jobs.checkpoints.list(job.id)))
table = base64.b64decode(client.files.content(job.result_files[0]).read()).decode()
print("result:", table.splitlines()[0])

# The last checkpoint is the tuned model itself. Jobs stay: OpenAI's API deletes none.
made = [at.fine_tuned_model_checkpoint for at in client.fine_tuning.jobs.checkpoints.list(job.id)]
for name in made:
    client.models.delete(name)
files = [training_file.id, *job.result_files]
for id in files:
    client.files.delete(id)
print("deleted:", *made, *files)
