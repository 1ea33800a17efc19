"""What every measurement is kept with: date, hardware and versions, and nothing of the place."""

import datetime
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmtool.runlog.env import describe_environment

RESULTS = Path(__file__).parent / "results"
_TELLING = ("versions", "python", "platform", "cpus", "cpus_allowed", "memory_mb", "gpus")


def facts() -> dict[str, Any]:
    """Give the date, the machine, the versions and how busy the machine is."""
    found = describe_environment(sys.argv)
    return {
        "date": datetime.date.today().isoformat(),
        "environment": {name: found[name] for name in _TELLING},
        "processor": _processor(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def write_results(name: str, measured: Mapping[str, Any], folder: Path) -> Path:
    """Write a measurement as `<date>_<name>.json` and give the file."""
    document = {**facts(), **measured}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['date']}_{name}.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    return path
