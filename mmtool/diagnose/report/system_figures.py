"""Charts about the machine: where a step goes, GPU and host, energy and what was wasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmtool.diagnose.report.bar_charts import Bar, bars, stacked_bar
from mmtool.diagnose.report.curve_chart import Line, line_chart
from mmtool.diagnose.report.figure import Figure, curve_rows, number, table
from mmtool.diagnose.report.svg import binned
from mmtool.diagnose.report.views import Plain, listed, mapping

SIGNALS = {
    "GPU busy, %": ("gpu", "_util"),
    "SM activity, %": ("gpu", "_sm"),
    "tensor activity, %": ("gpu", "_tensor"),
    "GPU memory, MB": ("gpu", "_mem_mb"),
    "GPU power, W": ("gpu", "_power_w"),
    "CPU, % of one core": ("cpu_percent", ""),
    "waiting for a processor, % of the time": ("psi_cpu", ""),
    "process memory, MB": ("rss_mb", ""),
}
TIMELINE_POINTS = 120
TIMELINE_ROWS = 24


def step_figures(metrics: Plain) -> list[Figure]:
    """Give a step by phase, the encoders' share of it, and its time over the run."""
    steps, where = mapping(metrics.get("steps")), mapping(metrics.get("where"))
    return [_phases(steps, where), _encoders(where), _step_time(steps)]


def phase_rows(steps: Plain, where: Plain) -> list[dict[str, Any]]:
    """Give the phases of a step as {name, ms, p50, p95, share}; the finer account where known."""
    rows = [p for p in listed(where.get("phases")) if isinstance(p, dict)]
    rows = rows or [p for p in listed(steps.get("phases")) if isinstance(p, dict)]
    found = []
    for row in rows:
        p50, p95 = row.get("ms_p50", row.get("p50_ms")), row.get("ms_p95", row.get("p95_ms"))
        ms = row.get("ms_mean", row.get("mean_ms", p50))
        if isinstance(ms, int | float):
            found.append(
                {"name": str(row.get("name")), "ms": float(ms), "p50": p50, "p95": p95,
                 "share": row.get("share")}
            )  # fmt: skip
    return found


def _phases(steps: Plain, where: Plain) -> Figure:
    rows = phase_rows(steps, where)
    step = mapping(steps.get("step"))
    caption = "Time of a step by phase."
    if step:
        caption = (
            f"Mean over {steps.get('num_steps')} steps, {steps.get('num_warmup_dropped')} warm-up "
            f"steps left out; a step takes {step['mean_ms']:.1f} ms, median {step['p50_ms']:.1f}, "
            f"95th percentile {step['p95_ms']:.1f}"
        )
        rate = steps.get("samples_per_s")
        caption += f"; {rate:,.0f} samples per second." if rate else "."
    return Figure(
        "step",
        stacked_bar("Step time by phase", [(r["name"], r["ms"]) for r in rows if r["ms"] > 0]),
        caption,
        ("phase", "ms", "median", "95th percentile", "share"),
        tuple(
            (r["name"], number(r["ms"]), number(r["p50"]), number(r["p95"]), _percent(r["share"]))
            for r in rows
        ),
    )


def _encoders(where: Plain) -> Figure:
    found = {str(m): mapping(v) for m, v in mapping(where.get("encoders")).items()}
    parts = [
        (f"{name} {way}", float(v[f"{way}_ms"]))
        for name, v in found.items()
        for way in ("forward", "backward")
        if isinstance(v.get(f"{way}_ms"), int | float)
    ]
    return Figure(
        "encoders",
        stacked_bar("Time of the encoders", parts),
        "Time of each modality's encoder in a step.",
        ("modality", "forward ms", "backward ms", "share of the step"),
        tuple(
            (
                m,
                number(v.get("forward_ms")),
                number(v.get("backward_ms")),
                _percent(v.get("share_of_step", v.get("share"))),
            )
            for m, v in found.items()
        ),
    )


def _step_time(steps: Plain) -> Figure:
    series = [row for row in listed(steps.get("series")) if isinstance(row, dict)]
    lines = [
        Line(label, [(r["step"], r[key]) for r in series if r.get(key) is not None], 0, dash)
        for dash, (label, key) in enumerate((("median", "p50_ms"), ("95th perc.", "p95_ms")))
    ]
    drawing = line_chart("Step time over the run", lines, x_label="step", y_label="ms", height=190)
    head, rows = curve_rows({line.label: line.points for line in lines}, "step")
    return Figure(
        "step_time", drawing, "Median and 95th percentile of parts of the run.", head, rows
    )


def timeline_figures(system: Plain) -> list[Figure]:
    """Give what was sampled of GPU and host, over time."""
    timeline = {str(k): listed(v) for k, v in mapping(system.get("timeline")).items()}
    figures = []
    for label, (start, end) in SIGNALS.items():
        keys = [k for k in timeline if k.startswith(start) and k.endswith(end or start)]
        lines = [
            Line(key.split("_")[0] if start == "gpu" else "host", _short(timeline[key]), i, i)
            for i, key in enumerate(keys)
        ]
        head, rows = curve_rows(
            {line.label: line.points for line in lines}, "seconds", TIMELINE_ROWS
        )
        name = label.split(",")[0].lower().replace(" ", "_")
        figures.append(
            Figure(
                f"timeline_{name}",
                line_chart(label, lines, x_label="seconds", y_label=label, height=170),
                "Sampled while the run went on.",
                head,
                rows,
            )
        )
    return figures


def _short(points: Sequence[Any]) -> list[tuple[float, float]]:
    return [(round(x, 1), mean) for x, _, mean, _ in binned(points, TIMELINE_POINTS)]


def cost_figures(metrics: Plain) -> list[Figure]:
    """Give energy by phase and modality, and what a modality cost after it had stopped learning."""
    energy = mapping(metrics.get("energy"))
    return [
        _plateau(mapping(metrics.get("plateau"))),
        _energy("energy_modality", "Energy by modality", mapping(energy.get("per_modality"))),
        _energy("energy_phase", "Energy by phase", mapping(energy.get("per_phase"))),
    ]


PLATEAU_KEYS = (
    "epoch", "share_of_run", "wasted_share", "hours", "gpu_hours", "joules", "how", "note",
)  # fmt: skip


def _plateau(plateau: Plain) -> Figure:
    found = {str(m): mapping(v) for m, v in plateau.items() if isinstance(v, dict)}
    drawn = [
        Bar(f"{name} (learnt until epoch {v.get('epoch')})", float(share), None, None, index)
        for index, (name, v) in enumerate(found.items(), start=1)
        if isinstance(share := v.get("wasted_share"), int | float)
    ]
    return Figure(
        "after_plateau",
        bars("Part of the cost spent after a modality had stopped improving", drawn),
        "What freezing an encoder at its plateau could save at most, if its features stay good.",
        ("modality", "plateau at epoch", "share of the run", "wasted share", "hours", "GPU hours",
         "joules", "obtained by", "note"),
        tuple(
            (
                name,
                *(number(v.get(key)) or "unknown" for key in PLATEAU_KEYS),
            )
            for name, v in found.items()
        ),
    )  # fmt: skip


def _energy(name: str, title: str, parts: Plain) -> Figure:
    known = [(str(k), float(v)) for k, v in parts.items() if isinstance(v, int | float)]
    apportioned = " Apportioned by GPU time, not measured." if "modality" in name else ""
    return Figure(
        name,
        stacked_bar(title, known, "J"),
        f"{title} in joules.{apportioned}",
        (title.rpartition(" ")[2], "joules"),
        tuple((key, number(value)) for key, value in known),
    )


def step_notes(metrics: Plain) -> list[str]:
    """Say what is not known about where a step goes."""
    where = mapping(metrics.get("where"))
    note = where.get("encoders_note")
    return [str(note)] if note else []


def pauses_table(metrics: Plain) -> str:
    """Give the longest pauses between steps, nothing where there are none."""
    pauses = [p for p in listed(mapping(metrics.get("where")).get("pauses")) if isinstance(p, dict)]
    rows = [[number(p.get(key)) for key in ("step", "ms", "cause")] for p in pauses]
    return table(("after step", "ms", "cause"), rows) if rows else ""


def cost_notes(metrics: Plain) -> list[str]:
    """Say what is known of energy as a whole and of the cost of the measurements themselves."""
    said = []
    if "energy" in metrics:
        total = mapping(metrics.get("energy")).get("total_j")
        why = mapping(metrics.get("energy")).get("why") or "nothing here measures it"
        kilojoules = "" if total is None else f"{float(total) / 1000:,.1f} kJ in all."
        said.append(kilojoules or f"Energy is unknown: {why}.")
    share = mapping(metrics.get("overhead")).get("share")
    if isinstance(share, int | float):
        said.append(f"The measurements themselves took {share:.2%} of the run.")
    return said


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "-"
