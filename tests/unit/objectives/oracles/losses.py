"""TRL's own losses on given logits: `losses.py GIVEN FOUND`, run in an environment that has TRL and nothing of ours.

GIVEN is safetensors, with tensors `<batch>/<name>`: `logits` of interleaved rows (2k is preferred to 2k + 1), their
`ids`, `attention` and `completion` masks, `reference` log-probabilities, and the `label` of each row 2k, whose row
2k + 1 is its mismatched one for KTO. The header's metadata has `cases`, JSON: name -> {"loss", "batch", settings...}.
FOUND gets `<name>/loss` and `<name>/gradient` with respect to the logits. TRL's trainers are used without their
constructors, which want a model, a data set and an accelerator.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

IGNORED = -100
Given = dict[str, Tensor]


def trainer_of(kind: type, **attributes: Any) -> Any:
    """An instance that never saw its constructor."""
    same = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    made = kind.__new__(kind)
    made.__dict__.update(model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False)
    made.__dict__.update(_metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1)
    made.__dict__.update(attributes)
    return made


def fused(logits_BTV: Tensor, labels_BT: Tensor) -> SimpleNamespace:
    """What TRL's patched forward returns: log-probabilities of the labels, 0 without a label; the rest is unused."""
    targets = labels_BT[:, 1:]
    logprobs = logits_BTV[:, :-1].log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    nothing = torch.zeros_like(logprobs)
    logprobs = logprobs.where(targets != IGNORED, nothing)
    return SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def apart(rows: Tensor) -> Tensor:
    """Preferred rows first, then the others, as TRL has them."""
    return torch.cat([rows[0::2], rows[1::2]])


def dpo(given: Given, logits: Tensor, loss_type: str, **settings: Any) -> Tensor:
    fixed = {"ld_alpha": None, "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "use_weighting": False}
    trainer = trainer_of(DPOTrainer, loss_types=[loss_type], loss_weights=[1.0], **fixed, **settings)
    inputs = {
        "input_ids": apart(given["ids"]),
        "attention_mask": apart(given["attention"]),
        "completion_mask": apart(given["completion"]),
        "ref_chosen_logps": given["reference"][0::2],
        "ref_rejected_logps": given["reference"][1::2],
    }
    return DPOTrainer._compute_loss(trainer, lambda labels, **_: fused(apart(logits), labels), inputs, False)


def kto(given: Given, logits: Tensor, **settings: Any) -> Tensor:
    trainer = trainer_of(KTOTrainer, precompute_ref_logps=True, calculate_KL=True, loss_type="kto", **settings)
    answers, mismatched = ({name: rows[side::2] for name, rows in given.items() if name != "label"} for side in (0, 1))
    inputs = {
        "input_ids": answers["ids"],
        "attention_mask": answers["attention"],
        "completion_mask": answers["completion"],
        "ref_logps": answers["reference"],
        "KL_input_ids": mismatched["ids"],
        "KL_attention_mask": mismatched["attention"],
        "KL_completion_mask": mismatched["completion"],
        "ref_KL_logps": mismatched["reference"],
        "label": given["label"].bool(),
    }

    def model(input_ids: Tensor, labels: Tensor, **_: Any) -> SimpleNamespace:
        return fused(logits[1::2] if torch.equal(input_ids, mismatched["ids"]) else logits[0::2], labels)

    return KTOTrainer._compute_loss(trainer, model, inputs, False)


def concatenated(kind: type, given: Given, logits: Tensor, **settings: Any) -> Tensor:
    """ORPO and CPO, which get labels instead of masks and call the model once for both answers."""
    trainer = trainer_of(kind, is_encoder_decoder=False, padding_value=0, pad_token_id=0, **settings)
    labels = given["ids"].masked_fill(given["completion"] == 0, IGNORED)
    batch = {}
    for side, name in enumerate(("chosen", "rejected")):
        batch[f"{name}_input_ids"] = given["ids"][side::2]
        batch[f"{name}_attention_mask"] = given["attention"][side::2]
        batch[f"{name}_labels"] = labels[side::2]
    loss, _ = kind.get_batch_loss_metrics(trainer, lambda ids, **_: SimpleNamespace(logits=apart(logits)), batch)
    return loss


def orpo(given: Given, logits: Tensor, **settings: Any) -> Tensor:
    return concatenated(ORPOTrainer, given, logits, **settings)


def cpo(given: Given, logits: Tensor, **settings: Any) -> Tensor:
    """Also SimPO; without CPO's own term, the loss of the preferred answer."""
    return concatenated(CPOTrainer, given, logits, cpo_alpha=0.0, alpha=0.0, **settings)


LOSSES: dict[str, Callable[..., Tensor]] = {"dpo": dpo, "kto": kto, "orpo": orpo, "cpo": cpo}


def main(given_path: str, found_path: str) -> None:
    batches: dict[str, Given] = defaultdict(dict)
    with safe_open(given_path, framework="pt") as file:
        cases = json.loads(file.metadata()["cases"])
        for key in file.keys():  # noqa: SIM118  # not a mapping
            batch, name = key.split("/")
            batches[batch][name] = file.get_tensor(key)
    found: dict[str, Tensor] = {}
    for name, settings in cases.items():
        given = batches[settings.pop("batch")]
        logits = given["logits"].clone().requires_grad_(True)
        loss = LOSSES[settings.pop("loss")](given, logits, **settings)
        loss.backward()
        assert logits.grad is not None
        found |= {f"{name}/loss": loss.detach().double(), f"{name}/gradient": logits.grad}
    save_file(found, found_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
