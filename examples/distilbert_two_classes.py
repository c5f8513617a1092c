"""A worked example of many guides, on this service: LoRA of rank 8 and alpha 16 on DistilBERT's query and value layers
(`q_lin`, `v_lin`), for reviews of two classes.

    python examples/distilbert_two_classes.py                     a small random base of DistilBERT's shape
    python examples/distilbert_two_classes.py --base FOLDER       a DistilBERT that you have, such as from a hub

Adds the base by command, starts a service of its own, trains one job and classifies rows that were held out. Exits with
1 where fewer than 80 % of them are right (half would be chance; about 90 % are expected, and another processor's
last bits move a few of them).
"""

import argparse
import json
import os
import random
import re
import string
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.jobs import follow, upload
from demo.service_process import ROOT, running_service
from openai import OpenAI
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast, set_seed

THINGS = ("film", "book", "meal", "hotel", "song", "game", "tour", "phone", "shop", "course", "train", "garden")
WORDS = {
    "positive": ("wonderful", "great", "lovely", "excellent", "delightful", "brilliant"),
    "negative": ("terrible", "awful", "boring", "dreadful", "disappointing", "horrible"),
}
SENTENCES = (
    "The {thing} was {word}.",
    "What a {word} {thing}!",
    "We found this {thing} {word}.",
    "A {word} {thing}, really.",
)
HELD_OUT = ("tour", "phone", "garden")
AT_LEAST = 0.8
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="LoRA on the attention of DistilBERT, for two classes.")
    parser.add_argument("--base", type=Path, help="a folder of DistilBERT (default: a random one of its shape)")
    options = parser.parse_args()
    training, held_out = split()
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = options.base or make_base(folder / "distilbert", [text for text, _ in training + held_out])
        catalogue = folder / "bases.toml"
        add = [sys.executable, "-m", "service", "bases", "add", str(source), "--id", "distilbert"]
        subprocess.run(add, env=os.environ | {"LUTHIER_CATALOGUE": str(catalogue)}, cwd=ROOT, check=True)
        rows = folder / "reviews.jsonl"
        rows.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in training))
        with running_service(catalogue) as service:
            client = OpenAI(base_url=service.base_url, api_key=service.api_key)
            model = tune(client, upload(client, rows))
            right = count_right(client, model, held_out)
    print(f"{right} of {len(held_out)} held-out reviews are right")
    return 0 if right >= AT_LEAST * len(held_out) else 1


def tune(client: OpenAI, training_file: str) -> str:
    """Runs the job to its end, and returns the model's name."""
    job = client.fine_tuning.jobs.create(
        model="distilbert",
        training_file=training_file,
        seed=1,
        extra_body={
            "method": {
                "type": "classification",
                "classification": {"hyperparameters": {"n_epochs": 5, "batch_size": 8}},
            },
            "tuning": {
                "type": "lora",
                "lora": {"r": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["q_lin", "v_lin"]},
            },
        },
    )
    for event in follow(client, job.id):
        if event.type == "message":
            print(f"  {event.message}")
    job = client.fine_tuning.jobs.retrieve(job.id)
    if job.fine_tuned_model is None:
        raise SystemExit(f"the job ended as '{job.status}': {job.error.message if job.error else 'no reason given'}")
    return job.fine_tuned_model


def count_right(client: OpenAI, model: str, rows: list[tuple[str, str]]) -> int:
    """How many rows get their own label."""
    body = {"model": model, "input": [text for text, _ in rows]}
    said = client.post("/classifications", body=body, cast_to=object)
    assert isinstance(said, dict)
    return sum(one["label"] == label for one, (_, label) in zip(said["data"], rows, strict=True))


def split() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Training rows, and rows about things that no training row is about."""
    rows = [
        (thing, sentence.format(thing=thing, word=word), label)
        for label, words in WORDS.items()
        for word in words
        for thing in THINGS
        for sentence in SENTENCES
    ]
    random.Random(1).shuffle(rows)
    training = [(text, label) for thing, text, label in rows if thing not in HELD_OUT]
    return training[:240], [(text, label) for thing, text, label in rows if thing in HELD_OUT]


def make_base(folder: Path, texts: list[str]) -> Path:
    """Writes a random model of DistilBERT's shape, with a tokenizer of the words of `texts` and of letters."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    pieces = [*words, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # training one gives other ids each time
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    config = DistilBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    set_seed(1)
    DistilBertModel(config).save_pretrained(folder)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
