"""Every parameter of the study: defaults from the paper, units, bounds. How files are read: ``yaml_files``."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plum_utils.yaml_files import ParamsError as ParamsError
from plum_utils.yaml_files import load_yaml, validated

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Price = Annotated[float, Field(ge=0)] | None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class PolicyParams(_Section):
    """The model to be trained, and how it is asked."""

    model: str = "embedded:smollm2"
    revision: str | None = None
    prompt: str = "chat"  # "chat": the tokenizer's own template; or one of prompts.TEMPLATES
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"  # auto: what the device has arithmetic for
    system: str | None = None
    answer_instruction: str = "Answer with one python code block."


class EngineParams(_Section):
    """vLLM's settings, by its own names; ``transformers`` has none of them.

    ``gpu_memory_utilization`` is the share of a card's memory for weights and KV cache, all of which must be free when the
    engine starts. ``max_model_len`` are the tokens of a prompt and its completion, at most the model's context.
    ``tensor_parallel_size`` cards hold an engine together, each a part of every layer. ``quantization`` is done to 16-bit
    weights as they are loaded (a model that comes as AWQ or GPTQ says so itself), and to a trained policy's merged ones.
    """

    gpu_memory_utilization: Rate = 0.9
    max_model_len: Annotated[int, Field(ge=128)] = 8192
    tensor_parallel_size: Positive = 1
    quantization: Literal["none", "fp8_per_tensor", "fp8_per_block", "int8_per_channel_weight_only"] = "none"

    def what_decides(self) -> dict[str, Any]:
        """The fields that a sample can depend on; the others are like another card."""
        return self.model_dump(include={"quantization"})


class GeneratorParams(_Section):
    """Stage 1: where reference solutions and tests come from (paper: GPT-4-1106; 3 responses, 6 for Evol-Instruct).

    ``openai`` is any server that speaks that API. Prices are US dollars for a million tokens; where both are given, the
    run refuses to start when its estimate is above ``max_cost``. Every response is kept in ``store``, by request.
    ``engine`` is ``vllm``'s, where it is not the policy's; its ``max_model_len`` follows the prompts.
    """

    backend: Literal["recorded", "openai", "vllm"] = "recorded"
    model: str = "gpt-4-1106-preview"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    responses: Positive = 3
    temperature: Temperature = 0.8
    max_tokens: Positive = 2048
    concurrency: Positive = 8
    requests_per_minute: Positive | None = None
    retries: Count = 6
    timeout_seconds: Above0 = 120.0
    price_prompt: Price = None
    price_completion: Price = None
    max_cost: Price = None
    engine: EngineParams | None = None
    store: str = "outputs/generator"
    live_model: str = "embedded:smollm2"
    live_instructions: Count = 6
    live_max_tokens: Positive = 512
    live_temperature: Temperature = 0.2


class DataParams(_Section):
    """Instruction sets: bundled names, JSONL files, or the paper's sets on the hub (``hub.HUB_SETS``).

    Of a hub set ``train_limit`` instructions are drawn with the run's seed, after its filters; ``source`` is a local
    copy of its files, ``revision`` a commit of the hub's.
    """

    train: str = "basics_train"
    train_limit: Positive | None = None
    source: str | None = None
    revision: str | None = None
    decontaminate: bool = False
    ngram: Annotated[int, Field(ge=3)] = 10
    table1: list[str] = ["oss", "evol", "sharegpt"]
    table1_limit: Positive | None = None
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0


class SamplingParams(_Section):
    """Stage 2 (paper, section 4: K = 20, 50 for Evol-Instruct; T = 1).

    ``adapters``: the LoRA adapter in use is merged into the engine's weights (``auto`` too), so that what lessons 05 and 06
    judge is what ``export`` writes; ``serve``: vLLM applies it beside them. ``ray`` is the address of a Ray cluster
    (``auto``: the one on this machine) on which ``replicas`` engines work at the same time. A shard is one call to an
    engine: ``shard_size`` times ``k`` completions should be several times what it computes at once, for at the end of a
    call a few long ones keep it waiting.

    ``stop``: strings that end a completion wherever they stand; a fence among them may also open a block.
    ``stop_after_program`` ends one at the fence that closes a block with a definition in it (``extract.ends_program``):
    never at an opening fence, nor after an example. The text is the beginning of what would be sampled without it.
    """

    backend: Literal["auto", "vllm", "transformers"] = "auto"
    adapters: Literal["auto", "serve", "merge"] = "auto"
    ray: str | None = None
    replicas: Positive = 1
    k: Positive = 20
    temperature: Temperature = 1.0
    top_p: Rate = 1.0
    max_tokens: Positive = 512
    stop: list[Annotated[str, Field(min_length=1)]] = []  # an empty one would end every completion at once
    stop_after_program: bool = False
    shard_size: Positive = 32

    def what_decides(self) -> dict[str, Any]:
        """The fields that a sample can depend on; where and how many at a time it cannot."""
        return self.model_dump(exclude={"ray", "replicas"})


class SandboxParams(_Section):
    """Limits of one untrusted program, as in ``sandbox.Limits``; ``workers`` run at the same time, where none are given as
    many as this process has cores, and the machine twice their ``memory_mb``.

    ``ray`` is the address of a Ray cluster (``auto``: the one on this machine) whose nodes run the programs instead.
    """

    workers: Positive | None = None
    seconds: Above0 = 5.0
    memory_mb: Annotated[int, Field(ge=64)] = 512
    factor: Annotated[float, Field(ge=1)] = 50.0
    least_seconds: Above0 = 1.0
    allow_weak: bool = False
    ray: str | None = None

    def what_decides(self) -> dict[str, Any]:
        """The fields that a verdict can depend on; where and how many at a time it cannot."""
        return self.model_dump(exclude={"workers", "ray"})


class LabelParams(_Section):
    """Stage 3. ``first_k`` and ``instructions`` label a part of what was sampled: for curves of scaling."""

    mypy: bool = True
    deduplicate: bool = True
    first_k: Positive | None = None
    instructions: Positive | None = None


class TrainingParams(_Section):
    """Stage 4. The paper gives neither learning rate, epochs, batch, beta nor LoRA rank: these are our choices.

    ``sft_solutions``: the policy's own chosen ones, or the data set's gold ones. ``preference_fraction`` of the
    instructions go to preference learning, and SFT takes the same ones or the rest, unseen by it (paper, section 4).

    ``negatives``, KTO's rejected side: programs that run and fail (the paper's); those that cannot run (its ablation); of the
    first those alone that define what their tests call, so that they fail by what they do; or those that do not.

    ``dpo_loss``: with ``ipo``, ``beta`` is the tau of Azar et al. 2023, Eq. 17. TRL averages the log-ratios over an answer's
    tokens, and draws chosen minus rejected to 1/(2 beta) nats a token, no further; the loss starts at 1/(4 beta^2). So beta is
    no scale to be taken from DPO: 0.1 asks for 5 nats a token, 250 in an answer of 50 tokens; 2.5 for 0.2 and 10.

    From ``precompute_reference`` on: speed and memory (docs/speed.md has what each is worth). Two of these change KTO's
    loss too, for its reference point z0 is the mean over what is computed together: with ``length_grouped`` it follows the
    length of a batch's samples, with ``fit_to_card`` the card decides over how many it is taken. ``auto`` is settled by the
    memory plan of the card at hand, and means "none" or "no" on a CPU.
    ``fit_to_card`` also lets the plan share out ``batch_size`` times ``accumulation`` anew, their product kept.
    ``processes`` train on as many devices through ``accelerate``, with its own file ``accelerate_config`` if given.

    ``report_to`` is a tracker of transformers' own. Every ``validate_steps`` steps (0: never) the policy is measured on the
    instructions that ``data.validation_fraction`` keeps out, which changes no byte of it, and ``keep`` takes the ``last``
    step's adapter or the ``best`` one's by that measure. ``chosen_falls``: what happens where the chosen programs' mean
    reward lies below its start, 0, in each of the last ``chosen_window`` steps: nothing, a warning, or the training stops.
    """

    objective: Literal["kto", "dpo", "sft", "sft+kto"] = "kto"
    negatives: Literal["failing", "unrunnable", "defining", "undefined"] = "failing"
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    quantization: Literal["none", "nf4", "auto"] = "nf4"
    lora_r: Positive | None = 16
    lora_alpha: Positive = 32
    lora_dropout: Fraction = 0.0
    learning_rate: Rate = 5e-5
    epochs: Above0 = 1.0
    max_steps: Annotated[int, Field(ge=-1)] = -1
    batch_size: Positive = 8
    accumulation: Positive = 2
    beta: Above0 = 0.1
    dpo_loss: Literal["sigmoid", "ipo"] = "sigmoid"
    warmup_ratio: Fraction = 0.1
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_length: Positive = 2048
    desirable_ratio: Annotated[float, Field(ge=1, le=4 / 3)] = 1.0
    max_per_side: Positive | None = None
    sft_solutions: Literal["chosen", "gold"] = "chosen"
    sft_instructions: Literal["same", "unseen"] = "same"
    preference_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    sft_learning_rate: Rate = 1e-4
    sft_epochs: Above0 = 1.0
    weight_decay: Fraction = 0.0
    max_grad_norm: Above0 = 1.0
    save_steps: Positive = 20
    precompute_reference: bool = False
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    fit_to_card: bool = False
    length_grouped: bool = True
    score_completions_only: bool = True
    reuse_memory: bool = True
    adapters_in_model_dtype: bool = True
    autocast: bool = False
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    optimizer: Literal["adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    liger: bool = False
    compile: bool = False
    processes: Positive = 1
    accelerate_config: str | None = None
    report_to: Literal["none", "tensorboard", "trackio", "wandb", "mlflow"] = "none"
    validate_steps: Count = 0
    keep: Literal["last", "best"] = "last"
    chosen_falls: Literal["ignore", "warn", "stop"] = "warn"
    chosen_window: Positive = 10

    @model_validator(mode="after")
    def _fields_agree(self) -> TrainingParams:
        if "kto" in self.objective and self.batch_size < 4:
            raise ValueError(f"batch_size: expected at least 4 for KTO (its KL term pairs neighbours of a batch), got "
                             f"{self.batch_size}")
        if self.accumulation % self.processes and not self.fit_to_card:  # the plan shares out by itself
            raise ValueError(f"accumulation: expected a multiple of training.processes ({self.processes}), got "
                             f"{self.accumulation}: a step takes accumulation batches of batch_size rows, whole ones in "
                             "each process")
        if self.sft_instructions == "unseen" and self.preference_fraction == 1:
            raise ValueError("preference_fraction: expected below 1, so that instructions are left for sft_instructions: "
                             "unseen, got 1")
        if self.negatives != "failing" and "kto" not in self.objective:
            raise ValueError(f"negatives: expected failing with objective {self.objective}, for KTO alone has another rejected "
                             f"side, got {self.negatives}")
        if self.dpo_loss != "sigmoid" and self.objective != "dpo":
            raise ValueError(f"dpo_loss: expected sigmoid with objective {self.objective}, which has no pairs, got {self.dpo_loss}")
        if self.keep == "best" and not self.validate_steps:
            raise ValueError("validate_steps: expected above 0, so that keep: best knows which step is, got 0")
        return self

    def sets(self) -> dict[str, str]:
        """For each objective the set of stage 3 that it trains on: the name of its file, without ``.jsonl``."""
        return {"kto": "kto" if self.negatives == "failing" else self.negatives, "dpo": "dpo", "sft": "sft"}


class Decoding(NamedTuple):
    """How solutions are drawn: ``n`` for each problem at a temperature; greedy decoding has one."""

    label: str
    n: int
    temperature: float


ProtocolName = Literal["study", "evalplus_chat", "evalplus_base", "magicoder", "codeqwen_chat", "codeqwen_base",
                       "opencodeinterpreter", "wizardcoder"]
BENCHMARKS = ("humaneval", "mbpp")  # which know other protocols than the study's


class SuiteParams(_Section):
    """One held-out suite: greedy always, and ``n`` samples at each temperature; listed once for each ``protocol``, which is
    ``evaluation.protocol`` where none is given."""

    name: str
    n: Count = 0
    temperatures: list[Annotated[float, Field(gt=0, le=2)]] = []
    limit: Positive | None = None
    protocol: ProtocolName | None = None

    @model_validator(mode="after")
    def _protocol_is_known(self) -> SuiteParams:
        if self.protocol not in (None, "study") and self.name not in BENCHMARKS:
            raise ValueError(f"protocol: expected study, for {self.name} has no other (only {' and '.join(BENCHMARKS)} "
                             f"have), got {self.protocol}")
        return self

    def decodings(self) -> list[Decoding]:
        """Greedy, then ``n`` samples at each temperature."""
        drawn = [Decoding(f"T={value:g}", self.n, value) for value in self.temperatures] if self.n else []
        return [Decoding("greedy", 1, 0.0), *drawn]


class EvaluationParams(_Section):
    """Stage 5. ``protocol``: how HumanEval and MBPP are asked, and what of a completion is judged
    (``evaluation.protocols``). All other suites are asked as in training, which is ``study``: of it alone are
    ``max_tokens`` and, for HumanEval and MBPP, ``postprocess``: how a program is taken out of a completion. ``clock``, of
    stage 6 too: ``cpu``, the program's processor time (and ten times as long by the wall), gives the same verdicts on a
    busy machine; ``wall`` is evalplus' and LiveCodeBench's own."""

    protocol: ProtocolName = "study"
    suites: list[SuiteParams] = []
    postprocess: Literal["extract", "evalplus"] = "extract"
    clock: Literal["cpu", "wall"] = "cpu"
    k: list[Positive] = [1, 10]
    max_tokens: Positive = 512
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @model_validator(mode="after")
    def _suites_differ(self) -> EvaluationParams:
        labels = [self.label(suite) for suite in self.suites]
        again = next((label for place, label in enumerate(labels) if label in labels[:place]), None)
        if again:
            raise ValueError(f"suites: expected each suite once a protocol, got {again} twice")
        return self

    def protocol_of(self, suite: SuiteParams) -> ProtocolName:
        return suite.protocol or self._usual(suite)

    def label(self, suite: SuiteParams) -> str:
        """The suite's name in tables and files; under another protocol than ``protocol`` that one's name follows."""
        protocol = self.protocol_of(suite)
        return suite.name if protocol == self._usual(suite) else f"{suite.name}-{protocol}"

    def _usual(self, suite: SuiteParams) -> ProtocolName:
        return self.protocol if suite.name in BENCHMARKS else "study"


class LiveCodeBenchParams(_Section):
    """Stage 6; ``source`` is ``bundled``, a folder or file of LiveCodeBench's JSONL, or a hub id.

    Problems of contests from ``start_date`` to ``end_date`` (both inclusive) on ``platforms``; all, where not given.
    ``release_v1``: of Table 4 (docs/paper_notes.md, section 3). ``protocol``: how a policy is asked and its answer read,
    ``study`` as for other problems, ``lcb_2024`` as LiveCodeBench's runner did in June 2024. ``grader``: how output and
    results are compared, and of ``lcb_2024`` which block is the program: as there until 2025, or as now. ``stop``: none
    given, samples' own. ``seconds``: limit of each test.
    """

    source: str = "bundled"
    release: str = "release_v1"
    protocol: Literal["study", "lcb_2024"] = "study"
    grader: Literal["v2024", "current"] = "current"
    start_date: date | None = None
    end_date: date | None = None
    platforms: list[str] = []
    n: Positive = 1
    temperature: Temperature = 0.0
    top_p: Rate = 1.0
    stop: list[Annotated[str, Field(min_length=1)]] | None = None
    limit: Positive | None = None
    max_tokens: Positive = 1024
    seconds: Above0 = 6.0


class SearchParams(_Section):
    """``python -m plum_utils search``: each candidate replaces fields of ``training``; ``n`` samples measure it."""

    candidates: list[dict[str, Any]] = []
    n: Positive = 10


class RowParams(_Section):
    """A row of a table (or figure) that a run stands for, by the names printed there; nothing is computed from it."""

    table: Annotated[str, Field(pattern=r"^[1-6]$|^[a-z][a-z0-9_]*$")]
    model: str
    row: str
    data: str = ""


class Params(_Section):
    """All parameters of one run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seed: Count = 0
    rows: list[RowParams] = []
    rounds: Positive = 1  # sample, label and train again, each time from the policy that the last round trained
    policy: PolicyParams = PolicyParams()
    generator: GeneratorParams = GeneratorParams()
    data: DataParams = DataParams()
    engine: EngineParams = EngineParams()
    sampling: SamplingParams = SamplingParams()
    sandbox: SandboxParams = SandboxParams()
    labels: LabelParams = LabelParams()
    training: TrainingParams = TrainingParams()
    evaluation: EvaluationParams = EvaluationParams()
    livecodebench: LiveCodeBenchParams = LiveCodeBenchParams()
    search: SearchParams = SearchParams()

    @model_validator(mode="after")
    def _validation_has_instructions(self) -> Params:
        if self.training.validate_steps and not self.data.validation_fraction:
            raise ValueError("training.validate_steps: expected data.validation_fraction above 0, the share of the "
                             "instructions that is kept out for it, got 0")
        return self


def load_params(path: str | Path, overrides: dict[str, Any] | None = None) -> Params:
    """Read a parameter file, the files it ``extends:`` (one or a list; later ones win; paths relative to it), and
    ``key.subkey`` overrides.

    Raises:
        ParamsError: no such file, broken YAML, an unknown key or a value out of bounds; it names file, line and key.
    """
    return load_yaml(Params, path, overrides)


def params_of(values: dict[str, Any], source: str) -> Params:
    """Parameters of ``key.subkey`` values alone; ``source``: what errors name them after."""
    return validated(Params, {}, {}, source, values)
