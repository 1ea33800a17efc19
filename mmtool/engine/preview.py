"""What a run would be, without starting it."""

from typing import Any

from mmtool.engine.build import build_job
from mmtool.engine.chain import plan_links
from mmtool.engine.devices import check_devices
from mmtool.engine.distributed import Ranks
from mmtool.engine.launch import TrainRequest


def check(request: TrainRequest) -> dict[str, Any]:
    """Give sizes and warnings of a run; refuses what the run itself would refuse."""
    recipe = request.loaded.recipe
    check_devices(recipe)
    links = plan_links(recipe, request.runs_root, request.data_root)
    job = build_job(recipe, Ranks(), data_root=request.data_root)
    try:
        counts = {n: sum(p.numel() for _, p in m) for n, m in job.groups.items()}
        trained = sum(counts.values())
        slots = 2 if recipe.train.optimizer == "adamw" else int(recipe.train.momentum > 0)
        return {
            "links": [one.in_words() for one in links],
            "dataset": str(job.dataset.store.path),
            "dataset_hash": job.dataset.store.hash,
            "protocol": job.dataset.protocol,
            "splits": {s: len(job.dataset.rows(s)) for s in ("train", "val", "test")},
            "modalities": list(job.dataset.modalities),
            "unimodal": job.model.way,
            "parameters": counts,
            "steps_per_epoch": job.steps_per_epoch(),
            "num_steps": job.steps_per_epoch() * recipe.train.epochs,
            "state_bytes": 4 * trained * (2 + slots),
            "warnings": list(job.warnings),
        }
    finally:
        job.close()
