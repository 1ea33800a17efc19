"""How a run finds back to where it was."""

from pathlib import Path

from mmtool.engine.checkpoint import load_checkpoint, recipe_of
from mmtool.engine.choose import choose_together
from mmtool.engine.job import Job
from mmtool.engine.same_recipe import changes
from mmtool.engine.saving import Emit, Saver
from mmtool.errors import RequestError


def resume(job: Job, saver: Saver, folder: Path, emit: Emit, *, may_change: bool) -> None:
    """Continue from the newest good checkpoint, saying what was passed over and what changed."""
    path, refused = choose_together(job.ranks, folder)
    for problem in refused:
        emit("event", what="warning", message=f"checkpoint passed over: {problem}")
    changed = changes(recipe_of(path), job.recipe)
    if changed and not may_change:
        raise RequestError(
            f"the recipe is not the one that {path.name} was trained with",
            why="\n".join(("it differs in", *changed)),
            fix="put it back, or: mmtool train --resume RUN --allow-change",
        )
    load_checkpoint(job, path)
    saver.trust(path)
    if changed:
        words = f"continued under a changed recipe: {'; '.join(changed)}"
        emit("event", what="warning", message=words)
    emit("event", what="resume", step=job.progress.step, name=path.name)
