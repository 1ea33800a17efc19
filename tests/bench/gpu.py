"""Measure recipes on this machine's device and keep the figures.

    python tests/bench/gpu.py [--steps 40] [--recipes quickstart avdigits_resnet18]

Runs `mmtool profile` for every recipe in this process, on the GPU where there is one, and writes
tests/bench/results/<date>_<device>.json with hardware and versions. Figures of different machines
are not comparable; those within one file are.
"""

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path

import torch

from mmtool.config.load import load_recipe
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.profile.run import profile
from mmtool.runlog.env import describe_environment

RESULTS = Path(__file__).parent / "results"
RECIPES = ("quickstart", "avdigits_resnet18")
PRECISIONS = ("fp32", "bf16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    store = given.data_root / "avdigits"
    if not store.exists():
        prepare(PrepareRequest("avdigits", None, store), lambda _: None)
    measured = []
    for name in given.recipes:
        for precision in PRECISIONS:
            loaded = load_recipe(name, [f"train.precision={precision}"])
            report = profile(loaded, data_root=given.data_root, steps=given.steps)
            measured.append({"precision": precision, **report.as_dict()})
            print("\n".join(report.lines()), f"\nprecision: {precision}\n")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    today = datetime.date.today().isoformat()
    path = given.out / f"{today}_{device.replace(' ', '-').lower()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"date": today, "device": device, "environment": describe_environment(sys.argv)}
    path.write_text(json.dumps({**facts, "profiles": measured}, indent=1, default=str) + "\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
