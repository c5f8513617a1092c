"""A program that uses every resource of the SDK. It is never run: mypy reads it, strictly, as it would a user's.

Each `type: ignore` is a wrong use that must be refused: mypy reports one that has become unnecessary.
"""

from pathlib import Path

from luthier import AsyncLuthier, Luthier, RateLimitError, models


def files(luthier: Luthier) -> int:
    file: models.FileObject = luthier.files.create(file=Path("rows.jsonl"), purpose="fine-tune")
    luthier.files.create(file=("rows.jsonl", b""), purpose="fine-tuning")  # type: ignore[arg-type]
    content: bytes = luthier.files.download(file.id).read()
    upload = luthier.uploads.create(filename="a", purpose="fine-tune", bytes=1, mime_type="text/jsonl")
    part = luthier.uploads.parts.add(upload.id, data=content)
    made = luthier.uploads.complete(upload.id, part_ids=[part.id], md5=None)
    if made.file is not None:
        luthier.files.delete(made.file.id)
    luthier.uploads.cancel(upload)  # type: ignore[arg-type]
    return sum(one.bytes for one in luthier.files.list(order="asc", limit=100))


def jobs(luthier: Luthier) -> str:
    job = luthier.fine_tuning.jobs.create(
        model="tiny",
        training_file="file-1",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}},
        tuning={"type": "lora", "lora": {"r": 8}},
    )
    luthier.fine_tuning.jobs.create(model="tiny")  # type: ignore[call-arg]
    tuning: models.TuningParam = {"type": "lora", "lora": {"r": "8"}}  # type: ignore[typeddict-item]
    luthier.fine_tuning.jobs.create(model="tiny", training_file="file-1", tuning=tuning)
    for event in luthier.fine_tuning.jobs.events.stream(job.id):
        level: str = event.level
        print(level, event.message)
    for checkpoint in luthier.fine_tuning.jobs.checkpoints.list(job.id):
        name = checkpoint.fine_tuned_model_checkpoint
        permissions = luthier.fine_tuning.checkpoints.permissions
        for permission in permissions.create(name, project_ids=["proj_1"]):
            permissions.delete(name, permission.id)
    luthier.fine_tuning.jobs.pause(job.id)
    luthier.fine_tuning.jobs.resume(job.id)
    ended = luthier.wait(luthier.fine_tuning.jobs.cancel(job.id).id, timeout_seconds=60)
    if isinstance(ended.method, models.DpoMethod):
        print(ended.method.dpo.hyperparameters.beta)
    wrong: int = ended.status  # type: ignore[assignment]
    return ended.fine_tuned_model or str(wrong)


def answers(luthier: Luthier, model: str) -> str:
    talk: list[models.RequestMessageParam] = [{"role": "user", "content": "Hello"}]
    chat = luthier.chat.completions.create(model=model, messages=talk, temperature=0)
    text = luthier.completions.create(model=model, prompt="Hello").choices[0].text
    for piece in luthier.completions.stream(model=model, prompt="Hello"):
        text += piece.choices[0].text
    response = luthier.responses.create(model=model, input="Hello")
    with luthier.chat.completions.stream(model=model, messages=talk) as stream:
        text += "".join(str(chunk) for chunk in stream)
    luthier.chat.completions.create(model=model, messages=[{"role": "robot"}])  # type: ignore[typeddict-item]
    owners = {one.id: one.owned_by for one in luthier.models.list()}
    luthier.models.delete(luthier.models.retrieve(model).id)
    return f"{text}{chat.choices[0].message.content}{response.id}{owners}{luthier.health().status}{luthier.metrics()}"


def checks(luthier: Luthier) -> list[str]:
    check = luthier.fine_tuning.checks.create(model="tiny", training_file="file-1", tuning={"type": "prompt"})
    luthier.fine_tuning.checks.create(model="tiny", file="file-1")  # type: ignore[call-arg]
    found = luthier.fine_tuning.checks.retrieve(check.id).result
    if found is None:
        return [one.id for one in luthier.fine_tuning.checks.list(limit=1)]
    problems: list[int] = [problem.line for problem in found.training_file.problems]
    shown = [piece.text for row in luthier.fine_tuning.checks.rows(check.id, start=0).data for piece in pieces(row)]
    luthier.fine_tuning.checks.delete(check.id)
    return [*map(str, problems), *shown]


def pieces(row: models.RowMask) -> list[models.Piece]:
    return [piece for sequence in row.sequences for piece in sequence.pieces if piece.trained]


def names(luthier: Luthier, model: str) -> str:
    alias = luthier.model_aliases.create(name="support", model=model, candidate={"model": "tiny", "weight": 0.1})
    luthier.model_aliases.create(name="support", model=model, candidate={"model": "tiny"})  # type: ignore[arg-type]
    moved = [luthier.model_aliases.promote(alias.id), luthier.model_aliases.rollback(alias.id, current_model=model)]
    changes: list[str] = [f"{one.action} {one.api_key.name}" for one in luthier.model_aliases.history.list(alias.id)]
    luthier.models.download(alias.id).write_to_file("model.zip")
    return f"{moved[0].model}{changes}{luthier.model_aliases.delete(alias.id).deleted}"


def webhooks(luthier: Luthier) -> int:
    known = list(luthier.webhook_event_types.list().data)
    endpoint = luthier.webhook_endpoints.create(name="ours", url="https://example.com", event_types=known)
    secret: str = luthier.webhook_endpoints.rotate(endpoint.id).signing_secret or endpoint.signing_secret
    forgotten = luthier.webhook_endpoints.retrieve(endpoint.id).signing_secret  # type: ignore[attr-defined]
    return luthier.webhook_endpoints.test(endpoint.id, event_type=known[0]).status_code + len(secret) + len(forgotten)


def api_keys(luthier: Luthier) -> str:
    made = luthier.api_keys.create(name="laptop", role="admin")
    luthier.api_keys.create(name="laptop", role="owner")  # type: ignore[arg-type]
    forgotten = luthier.api_keys.retrieve(made.id).value  # type: ignore[attr-defined]
    known: list[str] = [one.project for one in luthier.api_keys.list()]
    return f"{made.value}{forgotten}{known}{luthier.api_keys.delete(made.id).deleted}"


def labels(luthier: Luthier, model: str) -> list[str]:
    items = luthier.responses.input_items.list("resp_1")
    found = luthier.classifications.create(model=model, input=["one", "two"])
    return [*(one.label or "" for one in found.data), str(items)]


def vectors(luthier: Luthier, model: str) -> list[str]:
    found = luthier.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
    return [f"{one.index}: {one.embedding}" for one in found.data]


def imports(luthier: Luthier) -> list[str]:
    imported = luthier.push("my-adapter", "tiny", suffix="ours", wait=False)
    again = luthier.model_imports.retrieve(imported.id)
    forgotten = again.finished  # type: ignore[attr-defined]
    return [again.status, again.model or "", *(one.id for one in luthier.model_imports.list()), str(forgotten)]


def service(luthier: Luthier) -> str:
    return f"{luthier.root()}{luthier.livez()}{luthier.readyz()}"


async def in_asyncio() -> list[str]:
    async with AsyncLuthier(url="http://127.0.0.1:8000", api_key="key", max_retries=0) as luthier:
        try:
            job = await luthier.tune("rows.jsonl", "tiny", on_event=lambda event: print(event.message))
        except RateLimitError as error:
            return [error.message, error.code or "", str(error.status_code)]
        forgotten = luthier.files.retrieve("file-1").bytes  # type: ignore[attr-defined]
        first = await luthier.files.list()
        async for event in await luthier.fine_tuning.jobs.events.stream(job.id):
            print(event.data)
        written = await luthier.download(job.id, "results")
        names = [file.id async for file in luthier.files.list()]
        return [*map(str, written), *names, str(first.has_more), str(forgotten)]
