"""A worked example of many guides, on this service: prompt tuning of a BLOOM on 50 short prompts: 4 virtual tokens,
a learning rate of 0.005 and 5 epochs.

    python examples/bloom_prompt_tuning.py                     a small base of BLOOM's shape, made and taught here
    python examples/bloom_prompt_tuning.py --base FOLDER       a BLOOM that you have, with a chat template

The small base knows four ways to speak of a role, such as "poet", and uses the one that asks somebody to act as it
least of all. Not one of its weights is trained by the job: four vectors before the input make it use that way. Adds the
base by command, starts a service of its own, trains one job and asks base and tuned model about roles that the 50
prompts do not have. Exits with 1 where the tuned model does not speak so of at least 90 % of them, or the loss has not
fallen.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from demo.jobs import follow, upload
from demo.service_process import ROOT, running_service
from openai import OpenAI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast, set_seed

NUM_VIRTUAL_TOKENS, LEARNING_RATE, EPOCHS, NUM_PROMPTS = 4, 0.005, 5, 50
USUAL_RATE = 0.03  # of prompt tuning on this service (docs/methods.md), which a job's multiplier multiplies
BATCH_SIZE = 2
AT_LEAST = 0.9

ROLES = (
    "baker", "banker", "barber", "biologist", "bookseller", "botanist", "builder", "butcher", "carpenter", "chemist",
    "chef", "clerk", "coach", "composer", "critic", "dancer", "dentist", "designer", "detective", "director",
    "doctor", "driver", "farmer", "firefighter", "florist", "gardener", "geologist", "glazier", "guide", "historian",
    "hunter", "jeweller", "journalist", "judge", "lawyer", "librarian", "magician", "mathematician", "mechanic",
    "midwife", "miller", "musician", "novelist", "nurse", "painter", "pharmacist", "philosopher", "photographer",
    "physicist", "pilot", "plumber", "poet", "potter", "printer", "producer", "programmer", "roofer", "sailor",
    "sculptor", "singer", "surgeon", "tailor", "teacher", "translator", "tutor", "watchmaker", "weaver", "writer",
)  # fmt: skip
WANTED = "I want you to act as a {role}."
WAYS = {  # how often the base uses each, of eight times
    "A {role} is somebody with a profession.": 3,
    "Where can I find a good {role}?": 2,
    "My sister is a {role} in Lyon.": 2,
    WANTED: 1,
}
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEACHING_STEPS, TEACHING_ROWS, TEACHING_TURNS = 300, 16, 3


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Prompt tuning of a BLOOM on 50 short prompts.")
    parser.add_argument("--base", type=Path, help="a folder of BLOOM (default: a small one that is made here)")
    options = parser.parse_args()
    roles = random.Random(1).sample(ROLES, len(ROLES))
    prompted, held_out = roles[:NUM_PROMPTS], roles[NUM_PROMPTS:]
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = options.base or make_base(folder / "bloom")
        catalogue = folder / "bases.toml"
        add = [sys.executable, "-m", "service", "bases", "add", str(source), "--id", "bloom"]
        subprocess.run(add, env=os.environ | {"LUTHIER_CATALOGUE": str(catalogue)}, cwd=ROOT, check=True)
        rows = folder / "prompts.jsonl"
        rows.write_text("\n".join(json.dumps({"messages": chat(role, WANTED)}) for role in prompted), encoding="utf-8")
        with running_service(catalogue) as service:
            client = OpenAI(base_url=service.base_url, api_key=service.api_key)
            before = [ask(client, "bloom", role) for role in held_out]
            model, losses = tune(client, upload(client, rows))
            after = [ask(client, model, role) for role in held_out]
    for role, old, new in list(zip(held_out, before, after, strict=True))[:4]:
        print(f"{role:14} base: {old}\n{'':14} tuned: {new}")
    steps = len(losses) // EPOCHS
    means = [sum(losses[start : start + steps]) / steps for start in range(0, len(losses), steps)]
    print("mean loss of each epoch:", *(f"{mean:.3f}" for mean in means))
    right = count_wanted(after)
    print(f"base   asks to act as somebody for {count_wanted(before)} of {len(held_out)} roles without a prompt")
    print(f"tuned  asks to act as somebody for {right} of {len(held_out)}")
    return 0 if right >= AT_LEAST * len(held_out) and means[-1] < means[0] else 1


def chat(role: str, way: str) -> list[dict[str, str]]:
    """The role as a user's message, and what is said of it in this way."""
    return [{"role": "user", "content": role}, {"role": "assistant", "content": way.format(role=role)}]


def tune(client: OpenAI, training_file: str) -> tuple[str, list[float]]:
    """Runs the job to its end; returns the model's name, and the loss of each step."""
    job = client.fine_tuning.jobs.create(
        model="bloom",
        training_file=training_file,
        seed=1,
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": EPOCHS,
                    "batch_size": BATCH_SIZE,
                    "learning_rate_multiplier": LEARNING_RATE / USUAL_RATE,
                }
            },
        },
        extra_body={"tuning": {"type": "prompt", "prompt": {"num_virtual_tokens": NUM_VIRTUAL_TOKENS}}},
    )
    losses: list[float] = []
    rates: list[float] = []
    for event in follow(client, job.id):
        if event.type == "message":
            print(f"  {event.message}")
        elif isinstance(event.data, dict):
            losses.append(event.data["train_loss"])
            rates.append(event.data["learning_rate"])
    job = client.fine_tuning.jobs.retrieve(job.id)
    if job.fine_tuned_model is None:
        raise SystemExit(f"the job ended as '{job.status}': {job.error.message if job.error else 'no reason given'}")
    print(f"{len(losses)} steps, with a learning rate of at most {max(rates):.4g}")
    return job.fine_tuned_model, losses


def ask(client: OpenAI, model: str, role: str) -> str:
    """What the model says of the role: the most probable tokens."""
    said = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": role}], temperature=0, max_tokens=24
    )
    return (said.choices[0].message.content or "").strip()


def count_wanted(said: list[str]) -> int:
    """How many of these begin as the 50 prompts do."""
    return sum(one.startswith(WANTED.partition("{")[0]) for one in said)


def make_base(folder: Path) -> Path:
    """Writes a small model of BLOOM's shape that has learnt to speak of all roles, and its tokenizer."""
    ways = [way for way, times in WAYS.items() for _ in range(times)]
    tokenizer = make_tokenizer([way.format(role=role) for role in ROLES for way in WAYS])
    config = BloomConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        n_layer=2,
        n_head=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    set_seed(1)
    torch.set_num_threads(1)
    model = BloomForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, TEACHING_STEPS)
    numbers = random.Random(1)
    for _ in range(TEACHING_STEPS):
        texts = []
        for way in numbers.choices(ways, k=TEACHING_ROWS):  # a conversation keeps its way, what precedes shows it
            turns = [turn for role in numbers.sample(ROLES, TEACHING_TURNS) for turn in chat(role, way)]
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False))
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Bytes, and the pieces that the texts are made of."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
        model_max_length=256,
    )


if __name__ == "__main__":
    sys.exit(main())
