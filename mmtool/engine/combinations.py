"""Which methods, data, fusions and ways to launch go together; refuses others with the reason."""

from mmtool.config.schema import Recipe
from mmtool.data.dataset import Dataset
from mmtool.errors import RequestError
from mmtool.methods._base import BalancingMethod
from mmtool.text import plural
from mmtool.types import Needs


def check_needs(recipe: Recipe, dataset: Dataset, method: BalancingMethod) -> tuple[str, ...]:
    """Refuse a method whose needs this recipe cannot meet; give warnings about the rest."""
    needs, name = method.asked(), recipe.method.name
    found = len(dataset.modalities)
    if found < needs.min_modalities or (needs.max_modalities or found) < found:
        raise RequestError(
            f"method {name!r} cannot train {plural(found, 'modality', 'modalities')}",
            why=f"it takes {needs.min_modalities} to {needs.max_modalities or 'any number'}",
            fix="change data.modalities, or choose a method from: mmtool list methods",
        )
    if needs.fusions and recipe.model.fusion.name not in needs.fusions:
        fitting = sorted(needs.fusions)
        raise RequestError(
            f"method {name!r} does not work with fusion {recipe.model.fusion.name!r}",
            why=f"its mathematics needs one of: {', '.join(fitting)}",
            fix=f"-s model.fusion={fitting[0]}",
        )
    if dataset.task not in needs.tasks:
        raise RequestError(
            f"method {name!r} does not work with a {dataset.task} task",
            why=f"its formula is defined for: {', '.join(sorted(needs.tasks))}",
            fix="choose another method from: mmtool list methods",
        )
    if "class_means" in needs.epoch_statistics and dataset.task == "regression":
        raise RequestError(
            f"method {name!r} needs the mean feature of each class, which a regression has not",
            fix="choose another method from: mmtool list methods",
        )
    lacking = {
        "a held-out split": needs.held_out and len(dataset.rows("val")) == 0,
        "second-order gradients": needs.second_order,
    }
    for what, is_missing in lacking.items():
        if is_missing:
            raise RequestError(
                f"method {name!r} needs {what}, which this recipe or engine does not provide",
                fix="choose another method from: mmtool list methods",
            )
    if recipe.train.select == "best" and len(dataset.rows("val")) == 0:
        raise RequestError(
            f"protocol {dataset.protocol!r} of {recipe.data.dataset!r} has no validation split",
            why='train.select = "best" chooses the best epoch on validation, never on test',
            fix="-s train.select=last, or prepare with a validation split (val_fraction)",
        )
    option = method.scaling_option()
    if option and recipe.train.optimizer == "adamw":
        return (
            f"method {name!r} scales gradients, which AdamW cancels: "
            f"use -s method.{option}=update, or -s train.optimizer=sgd",
        )
    return ()


def check_exchange(recipe: Recipe, needs: Needs) -> None:
    """Refuse what takes encoders as wholes that do not know of each other."""
    launch, fusion = recipe.launch, recipe.model.fusion.name
    impossible = {
        "launch.compile": (
            launch.compile,
            "each encoder would be one graph",
            "launch.compile=false",
        ),
        "launch.streams": (launch.streams, "they would run side by side", "launch.streams=false"),
        'launch.sync = "fsdp"': (
            launch.sync == "fsdp",
            "FSDP2 gathers the parameters of a whole encoder",
            "launch.sync=explicit",
        ),
    }
    for what, (is_asked, why, setting) in impossible.items():
        if is_asked:
            raise RequestError(
                f"{what} does not work with fusion {fusion!r}",
                why=f"its encoders run stage by stage and hear each other between; {why}",
                fix=f"-s {setting}",
            )
    if needs.subsets != "none":
        raise RequestError(
            f"method {recipe.method.name!r} does not work with fusion {fusion!r}",
            why="it leaves modalities out of the fusion, after the other encoders have heard them",
            fix="-s model.fusion=concat",
        )


def check_sync(recipe: Recipe, needs: Needs, world: int) -> None:
    """Refuse a way to synchronise that would give this method wrong gradients."""
    sync = recipe.launch.sync
    if sync == "fsdp" and recipe.launch.compile:
        raise RequestError(
            "launch.compile does not work together with sharded encoders",
            why='launch.sync = "fsdp" gathers parameters inside of what would be one graph',
            fix="-s launch.compile=false",
        )
    is_apart = bool(needs.term_gradients) or needs.gradient_products
    if sync == "explicit" or world == 1 or not is_apart:
        return
    why = {
        "fsdp": "FSDP2 reduces gradients inside of one backward pass",
        "ddp": "DDP leaves ranks with different gradients after a second backward pass",
    }
    raise RequestError(
        f"method {recipe.method.name!r} needs the gradients of each loss, "
        f"which launch.sync = {sync!r} gets wrong",
        why=why[sync],
        fix="-s launch.sync=explicit",
    )
