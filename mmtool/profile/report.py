"""The result of `mmtool profile`, as data and as lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmtool.engine.timing import PHASES
from mmtool.profile.flops import PartCost
from mmtool.text import human_bytes, human_count, human_seconds

SCHEMA = "mmtool.profile/1"
_INPUT_BOUND_FROM = 0.10


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """What a short instrumented run measured."""

    recipe: str
    device: str
    num_threads: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    costs: Mapping[str, PartCost]
    real_ms: Sequence[float]
    synthetic_ms: Sequence[float]
    loader_ms: Sequence[float]
    phases: Sequence[Mapping[str, float]]
    peak_memory_bytes: int
    memory_kind: str

    @property
    def input_bound_share(self) -> float:
        """Share of a step that disappears when the batch is already there."""
        real, synthetic = np.median(self.real_ms), np.median(self.synthetic_ms)
        return float(max(0.0, 1.0 - synthetic / real))

    def samples_per_s(self, step_ms: Sequence[float]) -> float:
        """Throughput at the median of some step times."""
        return float(self.batch_size / np.median(step_ms) * 1e3)

    def epoch_seconds(self) -> dict[str, float]:
        """Predicted duration of an epoch's steps, without evaluation: p10, p50, p90 of the step."""
        found = quantiles(self.real_ms)
        return {name: ms * self.steps_per_epoch / 1e3 for name, ms in found.items()}

    def phase_shares(self) -> dict[str, float]:
        """Share of each phase in the summed step time of the real steps."""
        total = sum(p["step"] for p in self.phases)
        return {name: sum(p[name] for p in self.phases) / total for name in PHASES}

    def as_dict(self) -> dict[str, Any]:
        """Give everything for `--json`."""
        return {
            "schema": SCHEMA,
            "recipe": self.recipe,
            "device": self.device,
            "num_threads": self.num_threads,
            "batch_size": self.batch_size,
            "parts": {
                name: {
                    "num_parameters": c.num_parameters,
                    "forward_flops_per_sample": c.forward_flops,
                    "step_flops_per_sample": c.step_flops,
                }
                for name, c in self.costs.items()
            },
            "step_ms": {
                "real": quantiles(self.real_ms),
                "synthetic": quantiles(self.synthetic_ms),
                "loader": quantiles(self.loader_ms),
            },
            "samples_per_s": {
                "real": self.samples_per_s(self.real_ms),
                "synthetic": self.samples_per_s(self.synthetic_ms),
                "loader": self.samples_per_s(self.loader_ms),
            },
            "input_bound_share": self.input_bound_share,
            "phase_shares": self.phase_shares(),
            "peak_memory_bytes": self.peak_memory_bytes,
            "memory_kind": self.memory_kind,
            "steps_per_epoch": self.steps_per_epoch,
            "predicted_epoch_s": self.epoch_seconds(),
            "predicted_run_s": {k: v * self.epochs for k, v in self.epoch_seconds().items()},
        }

    def lines(self) -> list[str]:
        """Give a one-screen summary."""
        return [
            f"{self.recipe} on {self.device}, {self.num_threads} threads, "
            f"batch size {self.batch_size}",
            "",
            *self._part_lines(),
            "",
            *self._speed_lines(),
            "",
            *self._forecast_lines(),
        ]

    def _part_lines(self) -> list[str]:
        whole = sum(c.step_flops for c in self.costs.values()) or 1
        rows = [f"{'part':<12}{'parameters':>12}{'FLOP forward':>14}{'FLOP step':>12}{'share':>8}"]
        for name, c in self.costs.items():
            rows.append(
                f"{name:<12}{human_count(c.num_parameters):>12}{human_count(c.forward_flops):>14}"
                f"{human_count(c.step_flops):>12}{c.step_flops / whole:>8.0%}"
            )
        return [*rows, "(FLOP per sample; 2 per multiply-add)"]

    def _speed_lines(self) -> list[str]:
        rows = [f"{'steps':<26}{'median ms':>10}{'p10':>9}{'p90':>9}{'samples/s':>12}"]
        named = (
            ("real loader", self.real_ms),
            ("one cached batch", self.synthetic_ms),
            ("loader alone", self.loader_ms),
        )
        for name, values in named:
            q = quantiles(values)
            rows.append(
                f"{name:<26}{q['p50']:>10.2f}{q['p10']:>9.2f}{q['p90']:>9.2f}"
                f"{self.samples_per_s(values):>12,.0f}"
            )
        shares = "  ".join(f"{name} {share:.0%}" for name, share in self.phase_shares().items())
        return [*rows, f"step time: {shares}"]

    def _forecast_lines(self) -> list[str]:
        shares = self.phase_shares()
        bound, waiting = self.input_bound_share, shares["data"] + shares["transfer"]
        # Both signs are asked for: on a busy machine the two kinds of step differ by chance alone.
        is_bound = min(bound, waiting) > _INPUT_BOUND_FROM
        verdict = (
            f"{'input' if is_bound else 'compute'}-bound: {waiting:.0%} of a step waits for data; "
            f"on a cached batch a step is {bound:.0%} shorter"
        )
        epoch = self.epoch_seconds()
        return [
            verdict,
            f"peak memory: {human_bytes(self.peak_memory_bytes)} ({self.memory_kind})",
            f"predicted epoch: {human_seconds(epoch['p50'])} "
            f"({human_seconds(epoch['p10'])} to {human_seconds(epoch['p90'])}), "
            f"run of {self.epochs}: {human_seconds(epoch['p50'] * self.epochs)}, "
            "evaluation not included",
        ]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Give median and the 10th and 90th percentile."""
    p10, p50, p90 = np.percentile(values, [10, 50, 90]).tolist()
    return {"p10": p10, "p50": p50, "p90": p90}
