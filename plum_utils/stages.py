"""The six stages of a run: what each reads, and which parameters decide what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plum_utils.params import BENCHMARKS, Params


@dataclass(frozen=True)
class Stage:
    """A notebook.

    Args:
        name: of the notebook, and of its folder in a run.
        sections: of the parameters, that decide what it makes.
        reads: files of earlier stages, below the run's folder.
    """

    name: str
    sections: tuple[str, ...]
    reads: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages whose files it reads."""
        return tuple(dict.fromkeys(name.partition("/")[0] for name in self.reads))

    def parameters(self, params: Params) -> dict[str, Any]:
        """The sections that decide what the stage makes, as plain JSON values."""
        sections = set(self.sections)
        if self.name == TESTGEN and not params.generator.live_instructions and params.generator.backend != "vllm":
            sections -= {"policy", "engine", "sampling"}  # no model of ours is asked, so that policies can share the tests
        if "data" in sections and params.data.decontaminate:
            sections |= {"livecodebench"}
        decide = {name: getattr(params, name).what_decides() for name in sections & {"engine", "sampling", "sandbox"}}
        return params.model_dump(mode="json", include=sections) | decide

    def evalplus_suites(self, params: Params) -> set[str]:
        """The suites of which it reads evalplus' data: to evaluate on them, or to look for overlaps with them."""
        asked = {suite.name for suite in params.evaluation.suites} if self.name == EVALUATION else set()
        return asked & set(BENCHMARKS) | ({"mbpp"} if "data" in self.sections and params.data.decontaminate else set())


STAGES = (
    Stage("01_testgen", ("seed", "data", "policy", "generator", "engine", "sampling", "sandbox")),
    Stage("02_sampling", ("seed", "data", "policy", "engine", "sampling")),
    Stage("03_preferences", ("seed", "data", "policy", "sampling", "sandbox", "labels"),
          ("01_testgen/testgen.jsonl", "02_sampling/samples.jsonl")),
    Stage("04_train_kto", ("seed", "data", "policy", "sampling", "training"),
          ("03_preferences/kto.jsonl", "03_preferences/dpo.jsonl", "03_preferences/sft.jsonl",
           "03_preferences/unrunnable.jsonl", "03_preferences/defining.jsonl", "03_preferences/undefined.jsonl",
           "03_preferences/validation.jsonl")),
    Stage("05_evalplus_eval", ("seed", "rows", "data", "policy", "engine", "sampling", "sandbox", "training", "evaluation"),
          ("04_train_kto/policies.json",)),
    Stage("06_livecodebench_eval",
          ("seed", "rows", "policy", "engine", "sampling", "sandbox", "training", "evaluation", "livecodebench"),
          ("04_train_kto/policies.json",)),
)
BY_NAME = {stage.name: stage for stage in STAGES}
TESTGEN, SAMPLING, PREFERENCES, TRAINING, EVALUATION, CONTESTS = BY_NAME
