"""What a run will take on one device: hours and dollars by stage, out of measured rates or, marked as such, computed ones.

A rate is measured (``benchmarks/``) or computed from a data sheet with an assumed utilisation; the table says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.flops import Device, decode_tokens_per_second
from plum_utils.training.flops import kto_flops

MFU = 0.4  # assumed share of a data sheet's peak that training reaches
DECODE_SHARE = 0.6  # assumed share of the memory bandwidth's bound that sampling reaches


@dataclass(frozen=True)
class Workload:
    """What has to be done; tokens are means over samples.

    ``labelled``: samples that become chosen or rejected and are trained on, each ``epochs`` times for each seed.
    """

    samples: int
    prompt_tokens: float
    completion_tokens: float
    labelled: int
    seeds: int = 1
    epochs: float = 1.0
    evaluation_tokens: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Tokens or samples a second of one device; ``source`` says where they come from."""

    device: str
    sampled_tokens: float
    labelled_samples: float
    trained_samples: float
    source: str
    dollars_an_hour: float = 0.0


def computed_rates(config: Any, device: Device, work: Workload, labelled_samples: float, dollars_an_hour: float = 0.0
                   ) -> Rates:
    """Rates of a device that was not measured: training at ``MFU`` of its peak, sampling at ``DECODE_SHARE`` of what its
    memory's bandwidth allows; labelling runs on the CPU, at the rate given."""
    length = work.prompt_tokens + work.completion_tokens
    decode = decode_tokens_per_second(config, device, round(length))
    step = kto_flops(config, round(work.prompt_tokens), round(work.completion_tokens))
    return Rates(device.name, DECODE_SHARE * decode, labelled_samples, MFU * device.tflops * 1e12 / step,
                 f"computed: {MFU:.0%} of {device.tflops:g} TFLOP/s, {DECODE_SHARE:.0%} of {device.bandwidth:g} GB/s",
                 dollars_an_hour)


def stage_times(work: Workload, rates: Rates) -> pd.DataFrame:
    """Hours and dollars by stage.

    Returns:
        Columns ``stage``, ``amount`` (what is done), ``rate`` (of it, a second), ``hours``, ``dollars``; the last row is
        the sum.
    """
    trained = work.labelled * work.epochs * work.seeds
    amounts = [("02 sampling", work.samples * work.completion_tokens, rates.sampled_tokens, "tokens"),
               ("03 labelling", float(work.samples), rates.labelled_samples, "samples"),
               ("04 training", trained, rates.trained_samples, "samples"),
               ("05, 06 evaluation", work.evaluation_tokens, rates.sampled_tokens, "tokens")]
    rows = [{"stage": stage, "amount": f"{amount:,.0f} {unit}", "rate": f"{rate:,.3g} {unit}/s",
             "hours": amount / rate / 3600} for stage, amount, rate, unit in amounts if amount]
    rows.append({"stage": "together", "amount": "", "rate": "", "hours": sum(row["hours"] for row in rows)})
    return pd.DataFrame(rows).assign(dollars=lambda frame: frame.hours * rates.dollars_an_hour)
