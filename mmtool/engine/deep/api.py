"""Measure a run once more from its checkpoint: `deep/val.npz` and `deep/train.npz` beside its log.

deepen(run)                        a run directory, whatever trained it
measure_deep(job, directory)       a job that was just trained in this process
"""

from collections.abc import Sequence
from pathlib import Path

from mmtool.engine.deep.measure import SAMPLES, Asked, measure_deep, tell_nobody
from mmtool.engine.deep.record import Tell
from mmtool.engine.deep.reopen import recipe_of_run, reopen, selected_checkpoint
from mmtool.engine.deep.solo import solo_runs
from mmtool.engine.export import checkpoint_facts
from mmtool.engine.launch import OnLink, unwatched
from mmtool.engine.rank import set_threads
from mmtool.errors import RunDirectoryError
from mmtool.runlog.deep import DeepRecord, deep_path, read_deep
from mmtool.runlog.rundir import RunDir
from mmtool.text import plural

__all__ = ["SAMPLES", "Asked", "deepen", "measure_deep"]


def deepen(
    run: Path,
    *,
    solo: bool = False,
    solo_from: Sequence[Path] = (),
    headroom: bool = True,
    samples: int = SAMPLES,
    device: str | None = None,
    tell: Tell = tell_nobody,
    on_link: OnLink = unwatched,
) -> Path:
    """Measure the selected checkpoint of a run; give the folder of what was measured.

    What was measured of the same checkpoint before, and is enough, is kept. `solo` trains each
    modality alone first, or finds it trained; `solo_from` are runs of single modalities to take
    instead. A run that is being trained is refused.
    """
    asked = Asked(samples=samples, headroom=headroom)
    recipe = recipe_of_run(run, device)
    with RunDir(run).lock():
        path = selected_checkpoint(run, recipe)
        earlier = None if solo_from else _earlier(run)
        if earlier is not None and _is_enough(earlier, path, asked, solo=solo):
            tell(f"measured before: {plural(earlier.n, 'sample')} of {path.name}")
            return deep_path(run, "val").parent
        opened = reopen(run, device=device)
        try:
            set_threads(recipe, opened.job.device, 1)
            alone = solo_runs(
                run, opened.job, named=solo_from, is_asked=solo, tell=tell, on_link=on_link
            )
            return measure_deep(
                opened.job, run, asked=asked, initial=opened.initial, solo=alone, tell=tell
            )
        finally:
            opened.close()


def _earlier(run: Path) -> DeepRecord | None:
    """Give what was measured before; damaged files are measured again."""
    try:
        found, train = read_deep(run, "val"), read_deep(run, "train")
    except RunDirectoryError:
        return None
    return found if train is not None else None


def _is_enough(earlier: DeepRecord, checkpoint: Path, asked: Asked, *, solo: bool) -> bool:
    """Tell whether earlier measurements are of this checkpoint and hold all that is asked."""
    head, facts = earlier.head, checkpoint_facts(checkpoint)
    before = head.get("asked", {})
    return (
        head.get("step") == int(facts["step"])
        and head.get("dataset_hash") == facts["dataset_hash"]
        and before.get("samples") == asked.samples
        and (bool(before.get("headroom")) or not asked.headroom)
        and (not solo or len(earlier.modalities) == 1 or _has_all_solo(earlier))
    )


def _has_all_solo(earlier: DeepRecord) -> bool:
    return set(earlier.modalities) <= set(earlier.head.get("solo", {}))
