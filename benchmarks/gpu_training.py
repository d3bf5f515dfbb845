"""KTO with QLoRA on 7B shapes: peak memory, tokens a second against TRL's defaults, model FLOP utilisation, roofline.

    python benchmarks/gpu_training.py                # the three shapes at 2,048 tokens; needs a GPU
    python benchmarks/gpu_training.py --shapes bigcode/starcoder2-7b    # one of them; joins the results that are there
    python benchmarks/gpu_training.py --losses       # small models of the same architectures: losses, GPU against CPU
    python benchmarks/gpu_training.py --small        # the same code as the first on these small models, CPU or GPU

It needs torch, transformers, accelerate, peft, trl, datasets and bitsandbytes, and ``plum_utils`` beside it. Each result is
written when it is there. Weights are random, for speed and memory do not depend on them; every tensor has the real model's
shape. Each variant is a process of its own (peak memory starts at zero) that loads the checkpoint as the study does and runs
the real ``KTOTrainer.train()``. The roofline is measured in the same run: large bfloat16 matrix products.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SHAPES = ("Qwen/CodeQwen1.5-7B", "deepseek-ai/deepseek-coder-6.7b-base", "bigcode/starcoder2-7b")
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 4, "vocab_size": 8192}
VARIANTS = {
    "trl": "TRL's defaults on NF4 weights, batch of 4",
    "card_24": "what the plan for a 24 GB card chooses",
    "card_at_hand": "bfloat16 LoRA as the plan for this card chooses",
}
SAMPLES = 16  # an optimizer step
LEARNING_RATE = 1e-3  # high, so that a few steps move the losses


def main() -> None:
    without_lazy_loader()
    arguments = _arguments()
    if arguments.worker:
        return (compute_losses if arguments.losses else work)(arguments)
    if arguments.losses:
        return compare_losses(arguments)
    result = earlier(arguments.out, device=device_name(), length=arguments.length, small=arguments.small)
    result["roofline_tflops"] = roofline(arguments.small)
    print(f"{result['device']}: {result['roofline_tflops']:.3g} TFLOP/s in a large bfloat16 product", flush=True)
    for shape in arguments.shapes:
        rows = result["shapes"].setdefault(shape, {})
        with tempfile.TemporaryDirectory(prefix="plum-shape-", dir=arguments.scratch) as folder:
            random_checkpoint(shape, arguments.small, Path(folder))
            for name in arguments.variants:
                rows[name] = measure(name, shape, folder, arguments)
                compare(rows, result["roofline_tflops"])
                write_json(arguments.out, result)
        show(shape, rows)


def without_lazy_loader() -> None:
    """Let the package's rooms be entered where ``lazy_loader`` is not installed: only their modules are imported here."""
    def no_name(name: str) -> Any:
        raise AttributeError(name)

    try:
        import lazy_loader  # noqa: F401
    except ModuleNotFoundError:
        sys.modules["lazy_loader"] = SimpleNamespace(attach=lambda *_, **__: (no_name, list, []))  # type: ignore[assignment]


def earlier(file: Path, **same: Any) -> dict[str, Any]:
    """The results of an earlier call under the same conditions, to be added to; else none yet."""
    found = json.loads(file.read_text()) if file.exists() else {}
    return found if all(found.get(key) == value for key, value in same.items()) and found else same | {"shapes": {}}


def write_json(file: Path, result: dict[str, Any]) -> None:
    from plum_utils import jsonl

    file.parent.mkdir(parents=True, exist_ok=True)
    jsonl.write_json(file, result)


def compare(rows: dict[str, dict[str, Any]], roofline_tflops: float) -> None:
    """Add speed against TRL's defaults and the share of the measured roofline."""
    for one in rows.values():
        if "error" in one:
            continue
        one["share_of_roofline"] = round(one["model_tflops"] / roofline_tflops, 3)
        if "tokens_per_second" in rows.get("trl", {}):
            one["speedup"] = round(one["tokens_per_second"] / rows["trl"]["tokens_per_second"], 2)


def show(shape: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{shape}\n{'variant':14}{'tokens/s':>10}{'x TRL':>7}{'MFU':>7}{'roofline':>10}{'peak GiB':>10}{'planned':>9}"
          f"{'left GiB':>10}  losses")
    for name, one in rows.items():
        if "error" in one:
            print(f"{name:14}{one['error']}")
            continue
        mfu = f"{one['mfu']:.1%}" if one["mfu"] else "-"
        planned = f"{one['planned_gib']:.2f}" if one["planned_gib"] else "-"
        print(f"{name:14}{one['tokens_per_second']:10,.0f}{one.get('speedup', float('nan')):7.2f}{mfu:>7}"
              f"{one['share_of_roofline']:10.1%}{one['peak_gib']:10.2f}{planned:>9}{one['left_gib']:10.2f}  {one['losses']}",
              flush=True)


# --- losses on a GPU and on a CPU -------------------------------------------------------------------------------------

def compare_losses(arguments: argparse.Namespace) -> None:
    """Train small models of the shapes' architectures in float32 on both devices, and show how far their losses lie
    apart."""
    import torch

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    result: dict[str, Any] = {"device": device_name(), "length": arguments.length, "losses": {}}
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="plum-shape-", dir=arguments.scratch) as folder:
            random_checkpoint(shape, True, Path(folder))
            found = {device: measure(device, shape, folder, arguments) for device in devices}
        result["losses"][shape] = found
        write_json(arguments.out, result)
        for name in found["cpu"]:
            apart = max(abs(a - b) for a, b in zip(found["cpu"][name], found["cuda"][name])) if "cuda" in found else None
            print(f"{shape} {name}: CPU {found['cpu'][name]}", f"GPU {found['cuda'][name]}, at most {apart:.2g} apart"
                  if apart is not None else "(there is no GPU to compare with)", flush=True)


def compute_losses(arguments: argparse.Namespace) -> None:
    """The losses of each way to train on this process's device, as one JSON line."""
    from plum_utils.models.completions import release_memory
    from plum_utils.params import TrainingParams
    from plum_utils.training import policy, trainers

    tokenizer, found = policy.verbatim_tokenizer(arguments.model), {}
    rows = full_rows(tokenizer, SAMPLES * arguments.steps, arguments.length, arguments.prompt_share)
    for quantization, again in product(("none", "nf4"), (False, True)):
        params = TrainingParams(batch_size=4, accumulation=SAMPLES // 4, max_length=arguments.length,
                                max_steps=arguments.steps, save_steps=10**6, scheduler="constant_with_warmup",
                                learning_rate=LEARNING_RATE, quantization=quantization, gradient_checkpointing=again)
        with tempfile.TemporaryDirectory(prefix="plum-gpu-") as folder:
            trainer = trainers.make_kto_trainer(policy.load_policy(arguments.model, params, "float32"), tokenizer, rows, params,
                                                Path(folder), 0)
            trainer.train()
        name = f"{quantization}{', checkpointing' if again else ''}"
        found[name] = [round(entry["loss"], 6) for entry in trainer.state.log_history if "loss" in entry]
        del trainer
        release_memory()
    print(json.dumps(found))


# --- what is measured, and on what ------------------------------------------------------------------------------------

def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def roofline(small: bool) -> float:
    """TFLOP/s of a bfloat16 product of two square matrices of random numbers: the median of ten."""
    import torch

    device, size = ("cuda" if torch.cuda.is_available() else "cpu"), (1024 if small else 8192)
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[3:]) / 1e12


def config_of(shape: str, small: bool) -> Any:
    from plum_utils.models.shapes import model_config

    config = model_config(shape)
    if small:
        for key, value in SMALL.items():
            setattr(config, key, value)
        if getattr(config, "head_dim", None):
            config.head_dim = SMALL["hidden_size"] // SMALL["num_attention_heads"]
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:SMALL["num_hidden_layers"]]
    return config


def random_checkpoint(shape: str, small: bool, folder: Path) -> None:
    """A checkpoint of the shape with random bfloat16 weights and no dropout, and a tokenizer with a token for each byte."""
    import torch
    from transformers import AutoModelForCausalLM

    from plum_utils.training.policy import without_dropout

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(without_dropout(config_of(shape, small)), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")


def measure(name: str, shape: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant (or, of losses, device) in its own process; what it could not do (out of memory, say) is its result."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--shapes", shape, "--model", folder]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if name == "cpu" else {}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | hidden)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode and arguments.losses:
        raise SystemExit(f"{shape} on {name}: exit status {done.returncode}; its message is above")
    return json.loads(lines[-1]) if lines else {"error": f"exit status {done.returncode}; its message is above"}


# --- the worker ---------------------------------------------------------------------------------------------------

def work(arguments: argparse.Namespace) -> None:
    """Train some steps and print one JSON line."""
    import torch
    from transformers import TrainerCallback

    from plum_utils.models.completions import release_memory
    from plum_utils.training.flops import kto_flops

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.started = now()

        def on_step_end(self, *_, **__):
            seconds.append(now() - self.started)

    shape = arguments.shapes[0]
    config = config_of(shape, arguments.small)
    params, planned = settings(arguments.worker, config, arguments)
    try:
        trainer = build(arguments.worker, params, arguments)
        trainer.add_callback(Clock())
        trainer.train()
    except torch.OutOfMemoryError as error:
        print(json.dumps({"error": f"out of memory: {str(error).splitlines()[0][:120]}"}))
        return
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    peak = peak_gib()
    del trainer
    release_memory()
    step = statistics.median(seconds[1:])
    prompt = int(arguments.length * arguments.prompt_share)
    flops = SAMPLES * kto_flops(config, prompt, arguments.length - prompt)
    print(json.dumps({
        "tokens_per_second": round(SAMPLES * arguments.length / step, 1), "seconds_a_step": round(step, 3),
        "model_tflops": round(flops / step / 1e12, 4), "mfu": share_of_peak(flops / step), "peak_gib": peak,
        "planned_gib": planned, "left_gib": held_gib(), "steps": len(seconds), "batch_size": params.batch_size,
        "gradient_checkpointing": params.gradient_checkpointing, "quantization": params.quantization,
        "losses": losses}))


def now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def share_of_peak(flops_per_second: float) -> float | None:
    """Model FLOP utilisation against the data sheet's dense bfloat16 peak, as TRL knows it; ``None`` for others."""
    import torch
    from trl.trainer.utils import get_peak_flops

    peak = get_peak_flops(device_name(), "bfloat16") if torch.cuda.is_available() else None
    return round(flops_per_second / peak, 4) if peak else None


def peak_gib() -> float:
    """Most memory of the tensors on the GPU; without one, the process's largest resident size."""
    import resource

    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def held_gib() -> float:
    """Memory of the tensors that are on the GPU now; without one, what the process holds."""
    import psutil
    import torch

    held = torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
    return round(held / 2**30, 3)


def settings(name: str, config: Any, arguments: argparse.Namespace) -> tuple[Any, float | None]:
    """The variant's parameters, and the GiB that the plan expects on the device; none for TRL's own way, which it does not
    know."""
    from plum_utils.params import TrainingParams
    from plum_utils.training.planner import card_memory, plan

    base = TrainingParams(batch_size=4, accumulation=SAMPLES // 4, max_length=arguments.length, max_steps=arguments.steps,
                          scheduler="constant_with_warmup", save_steps=10**6, quantization="nf4", fit_to_card=True,
                          learning_rate=LEARNING_RATE, liger=arguments.liger)
    if name == "trl":
        return base.model_copy(update={"gradient_checkpointing": True, "fit_to_card": False}), None
    card = 24.0 if name == "card_24" else card_memory() or 24.0
    if name == "card_at_hand":
        base = base.model_copy(update={"quantization": "none"})
    made = plan(config, base, card)
    assumed = sum(size for name, size in made.parts.items() if "assumed" in name)
    return made.training, round((made.total - assumed) / 2**30, 2)  # what max_memory_allocated counts


def build(name: str, params: Any, arguments: argparse.Namespace) -> Any:
    """The variant's trainer over sequences that all fill ``length`` tokens."""
    from plum_utils.training import policy, trainers
    from plum_utils.training.speed import prepare_process

    tokenizer = policy.verbatim_tokenizer(arguments.model)
    rows = full_rows(tokenizer, SAMPLES * arguments.steps, arguments.length, arguments.prompt_share)
    folder = Path(tempfile.mkdtemp(prefix="plum-gpu-"))
    if name == "trl":
        return trl_trainer(tokenizer, rows, params, folder, arguments)
    prepare_process(params)
    model = policy.load_policy(arguments.model, params)
    return trainers.make_kto_trainer(model, tokenizer, rows, params, folder, 0)


def full_rows(tokenizer: Any, count: int, length: int, prompt_share: float) -> list[dict[str, Any]]:
    """Rows of as many instructions, each with texts of its own; completions of desirable ones add, of the others subtract, so
    that their gradients do not cancel. TRL cuts each completion at ``length`` tokens."""
    dice, cut = random.Random(0), int(length * prompt_share)

    def text(sign: str, least: int) -> str:
        """Lines until there are enough tokens, which are bytes at most."""
        lines = ""
        while len(tokenizer(lines)["input_ids"]) < least:
            lines += f"value_{dice.randrange(10**6)} = item_{dice.randrange(100)} {sign} {dice.randrange(1000)}\n"
        return lines

    rows = []
    for one in range(count):
        prompt = tokenizer.decode(tokenizer(text("*", cut))["input_ids"][:cut])
        rows.append({"instruction_id": f"i{one}", "prompt": [{"role": "user", "content": prompt}], "label": bool(one % 2),
                     "completion": [{"role": "assistant", "content": text("+" if one % 2 else "-", length)}]})
    return rows


def trl_trainer(tokenizer: Any, rows: list[dict[str, Any]], params: Any, folder: Path, arguments: argparse.Namespace
                ) -> Any:
    """TRL as its documentation starts it on a quantised model; batch, length and learning rate are the experiment's."""
    import torch
    from datasets import Dataset
    from transformers import BitsAndBytesConfig
    from trl import KTOConfig, KTOTrainer

    from plum_utils.training import policy

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=torch.bfloat16)
    config = KTOConfig(output_dir=str(folder), per_device_train_batch_size=params.batch_size,
                       gradient_accumulation_steps=params.accumulation, max_length=arguments.length,
                       max_steps=arguments.steps, learning_rate=params.learning_rate, logging_steps=1,
                       save_strategy="no", report_to=[], use_cpu=not torch.cuda.is_available(),
                       model_init_kwargs={"dtype": "bfloat16"})
    config._n_gpu = 1  # of several GPUs this process takes one; TRL refuses to start beside more
    return KTOTrainer(model=arguments.model, args=config, train_dataset=Dataset.from_list(rows),
                      processing_class=tokenizer, peft_config=policy.new_adapter(None, params),
                      quantization_config=quantization)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", action="store_true", help="small models' losses on the GPU against those on the CPU")
    parser.add_argument("--small", action="store_true", help="small models, 128 tokens: to see that everything runs")
    parser.add_argument("--shapes", nargs="*", default=SHAPES)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--length", type=int, help="tokens of every sequence; default: 2048, small: 128")
    parser.add_argument("--prompt-share", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps; the first one warms up")
    parser.add_argument("--liger", action="store_true", help="Liger's kernels in ours")
    parser.add_argument("--scratch", type=Path, help="where checkpoints of 15 GB are written for a while")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu_training.json, or gpu_losses.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.length = arguments.length or (128 if arguments.small or arguments.losses else 2048)
    name = "gpu_losses.json" if arguments.losses else "gpu_training.json"
    arguments.out = arguments.out or ROOT / "benchmarks" / "results" / name
    return arguments


if __name__ == "__main__":
    main()
