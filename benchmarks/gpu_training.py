"""KTO with QLoRA on 7B shapes: peak memory, tokens a second against TRL's defaults, model FLOP utilisation, roofline.

    python benchmarks/gpu_training.py                # the three shapes at 2,048 tokens; needs a GPU, some 25 minutes
    python benchmarks/gpu_training.py --small        # the same code on small models of the same architectures, CPU or GPU

Weights are random, for speed and memory do not depend on them; every tensor has the real model's shape. Each variant is
a process of its own (peak memory starts at zero) that loads the checkpoint as the study does and runs the real
``KTOTrainer.train()``. The roofline is measured in the same run: large bfloat16 matrix products.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
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


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        return work(arguments)
    result: dict[str, Any] = {"device": device_name(), "length": arguments.length, "small": arguments.small,
                              "roofline_tflops": round(roofline(arguments.small), 1), "shapes": {}}
    print(f"{result['device']}: {result['roofline_tflops']} TFLOP/s in a large bfloat16 product", flush=True)
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="plum-shape-", dir=arguments.scratch) as folder:
            random_checkpoint(shape, arguments.small, Path(folder))
            rows = {name: measure(name, shape, folder, arguments) for name in arguments.variants}
        compare(rows, result["roofline_tflops"])
        result["shapes"][shape] = rows
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        show(shape, rows)


def compare(rows: dict[str, dict[str, Any]], roofline_tflops: float) -> None:
    """Add speed against TRL's defaults and the share of the measured roofline."""
    for one in rows.values():
        if "error" in one:
            continue
        one["share_of_roofline"] = round(one["model_tflops"] / roofline_tflops, 3)
        if "tokens_per_second" in rows.get("trl", {}):
            one["speedup"] = round(one["tokens_per_second"] / rows["trl"]["tokens_per_second"], 2)


def show(shape: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{shape}\n{'variant':14}{'tokens/s':>10}{'x TRL':>7}{'MFU':>7}{'roofline':>10}{'peak GiB':>10}{'planned':>9}")
    for name, one in rows.items():
        if "error" in one:
            print(f"{name:14}{one['error']}")
            continue
        mfu = f"{one['mfu']:.1%}" if one["mfu"] else "-"
        planned = f"{one['planned_gib']:.2f}" if one["planned_gib"] else "-"
        print(f"{name:14}{one['tokens_per_second']:10,.0f}{one.get('speedup', float('nan')):7.2f}{mfu:>7}"
              f"{one['share_of_roofline']:10.1%}{one['peak_gib']:10.2f}{planned:>9}", flush=True)


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
    """A checkpoint of the shape with random bfloat16 weights, and a byte-level tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from plum_utils.study.dry import tiny_tokenizer

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config_of(shape, small), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def measure(name: str, shape: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant in its own process; what it could not do (out of memory, say) is its result."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--shapes", shape, "--model", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"error": f"exit status {done.returncode}; its message is above"}


# --- the worker ---------------------------------------------------------------------------------------------------

def work(arguments: argparse.Namespace) -> None:
    """Train some steps and print one JSON line."""
    import torch
    from transformers import TrainerCallback

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
    step = statistics.median(seconds[1:])
    prompt = int(arguments.length * arguments.prompt_share)
    flops = SAMPLES * kto_flops(config, prompt, arguments.length - prompt)
    print(json.dumps({
        "tokens_per_second": round(SAMPLES * arguments.length / step, 1), "seconds_a_step": round(step, 3),
        "model_tflops": round(flops / step / 1e12, 4), "mfu": share_of_peak(flops / step), "peak_gib": peak_gib(),
        "planned_gib": planned, "steps": len(seconds), "batch_size": params.batch_size,
        "gradient_checkpointing": params.gradient_checkpointing, "quantization": params.quantization,
        "losses": [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]}))


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


def settings(name: str, config: Any, arguments: argparse.Namespace) -> tuple[Any, float | None]:
    """The variant's parameters, and the GiB that the plan expects on the device; none for TRL's own way, which it does not
    know."""
    from plum_utils.params import TrainingParams
    from plum_utils.training.planner import card_memory, plan

    base = TrainingParams(batch_size=4, accumulation=SAMPLES // 4, max_length=arguments.length, max_steps=arguments.steps,
                          scheduler="constant_with_warmup", save_steps=10**6, quantization="nf4", fit_to_card=True,
                          liger=arguments.liger)
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
    """Rows of as many instructions, half of them desirable; TRL cuts each completion at ``length`` tokens."""
    word = "def answer(x): return x + 1 "
    repeat = length // max(1, len(tokenizer(word)["input_ids"])) + 2
    cut = int(length * prompt_share)
    prompt = tokenizer.decode(tokenizer(word * repeat)["input_ids"][:cut])
    return [{"instruction_id": f"i{one}", "prompt": [{"role": "user", "content": prompt}],
             "completion": [{"role": "assistant", "content": word * (repeat + 2)}], "label": bool(one % 2)}
            for one in range(count)]


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
    return KTOTrainer(model=arguments.model, args=config, train_dataset=Dataset.from_list(rows),
                      processing_class=tokenizer, peft_config=policy.new_adapter(None, params),
                      quantization_config=quantization)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small models, 128 tokens: to see that everything runs")
    parser.add_argument("--shapes", nargs="*", default=SHAPES)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--length", type=int, help="tokens of every sequence; default: 2048, small: 128")
    parser.add_argument("--prompt-share", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps; the first one warms up")
    parser.add_argument("--liger", action="store_true", help="Liger's kernels in ours")
    parser.add_argument("--scratch", type=Path, help="where checkpoints of 15 GB are written for a while")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/gpu_training.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.length = arguments.length or (128 if arguments.small else 2048)
    return arguments


if __name__ == "__main__":
    main()
