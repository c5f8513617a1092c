"""The same job in TRL's SFTTrainer, measured step by step, in TRL's environment: `PYTHON FILE JOB.json RESULT.json`.

Started by `benchmarks.train_one`, which says where PEFT is. `tuned` is what a careful user turns on: no activation
recomputation, batches of similar lengths. Packing is left out: TRL packs with FlashAttention only, which no CPU has.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(job: Path, result: Path) -> None:
    given = json.loads(job.read_text(encoding="utf-8"))
    sys.path.append(given["peft_path"])  # behind its own packages
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    torch.set_num_threads(given["threads"])
    model = AutoModelForCausalLM.from_pretrained(given["base"], dtype=getattr(torch, given["dtype"]))
    tuned: dict[str, Any] = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    config = SFTConfig(
        output_dir=str(result.parent / "trl"), max_steps=given["steps"], num_train_epochs=given["epochs"],
        per_device_train_batch_size=given["batch_size"], learning_rate=given["learning_rate"], seed=given["seed"],
        use_cpu=True, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, bf16=False,
        dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, **(tuned if given["tuned"] else {}),
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in given["rows"]]
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    steps: list[dict[str, float]] = []
    batches: list[tuple[int, int]] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.cpu, self.wall = cpu_seconds(), time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            trained, tokens = batches[len(steps)]
            one = {"cpu": cpu_seconds() - self.cpu, "wall": time.perf_counter() - self.wall}
            steps.append({**one, "trained": trained, "tokens": tokens})

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                steps[-1]["loss"] = float(logs["loss"])

    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), peft_config=lora, callbacks=[Watch()],
        processing_class=AutoTokenizer.from_pretrained(given["base"]),
    )  # fmt: skip
    collate = trainer.data_collator

    def counted(rows: list[dict[str, list[int]]]) -> Any:
        batches.append((sum(sum(label >= 0 for label in row["labels"][1:]) for row in rows),
                        sum(len(row["input_ids"]) for row in rows)))  # fmt: skip
        return collate(rows)

    trainer.data_collator = counted
    trainer.train()
    found = {"steps": steps, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    result.write_text(json.dumps(found), encoding="utf-8")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
