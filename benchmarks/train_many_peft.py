"""Jobs as users write them without a service: `python -m benchmarks.train_many_peft JOB.json [RESULT.json]`.

Started by `benchmarks.train_many` and `benchmarks.on_gpu`. `process`: one job with the Trainer of transformers and
PEFT, then the process ends. `serial`: all jobs one after another in one process that keeps its base, in a loop of
nothing but torch and PEFT. `loop`: the same of one job, measured step by step.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import pad
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.train_one_ours import peak_bytes
from workers.data.batches import IGNORED, epoch_order


def main(job: Path, result: Path | None = None) -> None:
    given = json.loads(job.read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    dtype, device = getattr(torch, given.get("dtype", "float32")), torch.device(given.get("device", "cpu"))
    model = AutoModelForCausalLM.from_pretrained(given["base"], dtype=dtype).to(device)
    if given["kind"] == "process":
        with_trainer(model, given, job.parent)
        return
    steps: list[dict[str, float]] = []
    for seed in range(given["jobs"]):
        torch.manual_seed(seed)
        with_loop(adapted(model), given, seed, job.parent / f"serial-{seed}", steps)
    if result is not None:
        result.write_text(json.dumps({"steps": steps, "peak_bytes": peak_bytes(device)}), encoding="utf-8")


def adapted(model: Any) -> PeftModel:
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def with_trainer(model: Any, given: dict[str, Any], folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> None:
    tokenizer = AutoTokenizer.from_pretrained(given["base"])
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=given["epochs"], learning_rate=given["learning_rate"],
        per_device_train_batch_size=given["batch_size"], use_cpu=model.device.type == "cpu", report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels} for ids, labels in given["rows"]]
    tuned = adapted(model)
    Trainer(
        model=tuned, args=arguments, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=list(callbacks),
    ).train()  # fmt: skip
    tuned.save_pretrained(folder / "process")


def with_loop(model: PeftModel, given: dict[str, Any], seed: int, folder: Path, steps: list[dict[str, float]]) -> None:
    """Adds the tokens and the seconds of each step to `steps`."""
    rows, size = given["rows"], given["batch_size"]
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(moving, lr=given["learning_rate"], weight_decay=0.0, fused=True)
    model.train()
    for epoch in range(given["epochs"]):
        order = epoch_order(seed, epoch, len(rows))
        for begin in range(0, len(rows), size):
            began = time.perf_counter()
            batch = [rows[place] for place in order[begin : begin + size]]
            longest = max(len(ids) for ids, _ in batch)
            ids_BT = torch.stack([pad(torch.tensor(ids), (0, longest - len(ids))) for ids, _ in batch])
            labels_BT = torch.stack(
                [pad(torch.tensor(labels), (0, longest - len(labels)), value=IGNORED) for _, labels in batch]
            )
            mask_BT = torch.stack([pad(torch.ones(len(ids)), (0, longest - len(ids))) for ids, _ in batch]).long()
            inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}
            loss = model(**{name: one.to(model.device) for name, one in inputs.items()}, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(moving, 1.0)
            adam.step()
            adam.zero_grad(set_to_none=True)
            loss.item()  # waits until the device has done it
            steps.append({"wall": time.perf_counter() - began, "tokens": sum(len(ids) for ids, _ in batch)})
    model.save_pretrained(folder)
    model.unload()  # type: ignore[operator]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
