"""What each worker of a launch sees and ends with: run by ``accelerate launch`` in test_distributed_training.

    accelerate launch ... distributed_probe.py job.json

Writes ``rank<N>.json`` beside the job: the batches that this worker trained on, decoded, its weights' digest (of its
share of them, where they are shared out), and how many bytes of weights it holds.

accelerate shards on GPUs only: where FSDP is asked for, its workers are told that they are such.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType

from plum_utils.training import launch, policy
from plum_utils.training import trainers as trainers_module

seen: list[list[dict[str, str]]] = []
trainers = []


def decoded(tokenizer, batch) -> list[dict[str, str]]:
    """The texts of a batch's rows: prompt, completion, and the completion that the KL term takes."""
    def text(prefix: str, place: int, learned: int) -> str:
        mask = batch[f"{prefix}attention_mask"][place].bool() & (batch[f"{prefix}completion_mask"][place] == learned)
        return tokenizer.decode(batch[f"{prefix}input_ids"][place][mask])

    return [{"prompt": text("", place, 0), "completion": text("", place, 1), "kl_completion": text("KL_", place, 1)}
            for place in range(len(batch["label"]))]


def watched(*arguments):
    trainer = trained(*arguments)
    trainers.append(trainer)
    return trainer


def watch_batches(make):
    def made(*arguments):
        trainer = make(*arguments)
        compute_loss = trainer.compute_loss

        def noted(model, inputs, *rest, **more):
            seen.append(decoded(trainer.processing_class, inputs))
            return compute_loss(model, inputs, *rest, **more)

        trainer.compute_loss = noted
        return trainer
    return made


def as_on_gpus(init):
    def made(self, *arguments, **named):
        init(self, *arguments, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU
    return made


if policy.is_sharded():
    PartialState.__init__ = as_on_gpus(PartialState.__init__)
trained, trainers_module._trained = trainers_module._trained, watched
trainers_module.TRAINERS["kto"] = watch_batches(trainers_module.TRAINERS["kto"])
job = Path(sys.argv[1])
rank = PartialState(cpu=True).process_index
launch.work(job)
own = {name: getattr(weight, "_local_tensor", weight).detach() for name, weight in trainers[0].model.named_parameters()}
adapter = hashlib.sha256(b"".join(own[name].float().numpy().tobytes() for name in sorted(own) if "lora" in name))
(job.parent / f"rank{rank}.json").write_text(json.dumps(
    {"batches": seen, "adapter": adapter.hexdigest(), "bytes": sum(weight.nbytes for weight in own.values())}))
