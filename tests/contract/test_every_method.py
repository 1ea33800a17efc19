"""What every balancing method must hold, whoever wrote it.

Any number of ranks and micro-batches equals one process on the same global batch, replicas stay
equal, a run that was stopped in the middle of an epoch continues bit for bit, half precision works,
and a step whose gradients overflow leaves weights and method as they were.
"""

import traceback
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtool import registry
from mmtool.engine.build import build_job
from mmtool.engine.distributed import Ranks
from mmtool.engine.loop import fit
from mmtool.errors import StoppedResumable
from mmtool.testing.cases import Case, case_of, contract_recipe, write_contract_store
from mmtool.testing.ranks import run_ranks
from mmtool.testing.training import StopAfter, ignore, train_here, weights

METHODS = registry.names("methods")
SHAPES = ("alternating", "per_term", "epochal", "penalised")
FIXED = Path(__file__).with_name("control_shapes.py")
PLUGIN = Path(__file__).with_name("slow_leader.py")
EVERY = [*METHODS, *SHAPES, "plugin"]
# float32 sums in another order; learning rates here move weights by about 1e-1.
TOLERANCE = 2e-5


def recipe_for(method, **train):
    """The contract's recipe for a built-in method, one of the minimal shapes or the plugin."""
    if method == "plugin":
        return contract_recipe(str(PLUGIN), Case(), **train)
    if method in SHAPES:
        return contract_recipe(str(FIXED), Case({"shape": method}), **train)
    return contract_recipe(method, **train)


@cache
def store_root() -> Path:
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="mmtool-contract-"))
    write_contract_store(root / "fake")
    return root


def train_all(ranks: Ranks, root: str, out: str) -> None:
    """Train every method on these ranks; called in each rank process."""
    for method in EVERY:
        name = f"{out}/{method}.rank{ranks.rank}"
        try:
            recipe = recipe_for(method, accumulate=2)
            trained = train_here(
                recipe, data_root=Path(root), checkpoints=Path(out) / method, ranks=ranks
            )
            plain = {key: value.contiguous() for key, value in trained.items()}
            save_file(plain, f"{name}.safetensors")
        except Exception:  # noqa: BLE001 - told by the test of this method
            Path(f"{name}.error").write_text(traceback.format_exc(), encoding="utf-8")


@cache
def trained_by(world: int) -> Path:
    import tempfile

    out = Path(tempfile.mkdtemp(prefix=f"mmtool-contract-{world}-"))
    target = f"{Path(__file__)}:train_all"
    run_ranks(world, target, str(store_root()), str(out), timeout_s=600.0)
    return out


@cache
def alone(method: str):
    """Weights and untrained weights of one process with one micro-batch."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="mmtool-contract-one-"))
    recipe = recipe_for(method)
    trained = train_here(recipe, data_root=store_root(), checkpoints=folder)
    job = build_job(recipe, Ranks(), data_root=store_root())
    try:
        return trained, weights(job)
    finally:
        job.close()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def differing(one, other, tolerance=TOLERANCE):
    return [
        name
        for name, value in one.items()
        if not torch.allclose(value.float(), other[name].float(), atol=tolerance)
    ]


def test_the_walk_finds_the_methods():
    assert {"none", "ogm", "opm", "modality_dropout", "multi_loss"} <= set(METHODS)


def test_a_whole_method_is_a_file_of_less_than_sixty_lines():
    assert len(PLUGIN.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("method", EVERY)
def test_several_ranks_equal_one_process(method, world):
    out = trained_by(world)
    errors = [path.read_text(encoding="utf-8") for path in out.glob(f"{method}.rank*.error")]
    assert not errors, errors[0]
    first, *others = (load_file(out / f"{method}.rank{rank}.safetensors") for rank in range(world))

    for other in others:
        unequal = [name for name, value in first.items() if not torch.equal(value, other[name])]
        assert unequal == [], "replicas differ"
    assert differing(alone(method)[0], first) == []


@pytest.mark.parametrize("method", EVERY)
def test_micro_batches_do_not_change_the_result(method, tmp_path):
    recipe = recipe_for(method, accumulate=4)

    cut = train_here(recipe, data_root=store_root(), checkpoints=tmp_path)

    assert differing(alone(method)[0], cut) == []


@pytest.mark.parametrize("method", EVERY)
def test_a_stopped_run_continues_bit_for_bit(method, tmp_path):
    recipe = recipe_for(method)
    whole = alone(method)[0]

    train_here(recipe, data_root=store_root(), checkpoints=tmp_path, stop_after=6)
    rest = train_here(recipe, data_root=store_root(), checkpoints=tmp_path, is_resumed=True)

    assert [name for name in whole if not torch.equal(whole[name], rest[name])] == []


@pytest.mark.parametrize("method", EVERY)
def test_training_moves_every_encoder_that_it_is_to_train(method):
    trained, untrained = alone(method)
    recipe = recipe_for(method)
    only = recipe.method.options.get("modality") if method == "unimodal" else None
    for modality in recipe.data.modalities or ("audio", "image", "motion"):
        names = [n for n in trained if n.startswith(f"encoders.{modality}.")]
        moved = [n for n in names if not torch.equal(trained[n], untrained[n])]
        assert names
        assert bool(moved) == (only is None or only == modality)


@pytest.mark.parametrize("method", [name for name in EVERY if name not in ("none", "penalised")])
def test_a_method_does_something_in_its_case(method, tmp_path):
    case = case_of(method)
    # The fusion that MMCosine asks for is all it changes.
    fusion = "concat" if method == "mmcosine" else case.fusion
    plain = Case({}, fusion, case.modalities, case.encoders, case.train)
    joint = train_here(contract_recipe("none", plain), data_root=store_root(), checkpoints=tmp_path)
    trained, _ = alone(method)

    of_encoders = [n for n in joint if n.startswith("encoders.")]
    assert of_encoders
    assert any(not torch.equal(joint[n], trained[n]) for n in of_encoders)


@pytest.mark.parametrize("method", EVERY)
def test_half_precision_trains_float32_weights(method, tmp_path):
    recipe = recipe_for(method, precision="bf16")

    trained = train_here(recipe, data_root=store_root(), checkpoints=tmp_path)

    before, exact = alone(method)[1], alone(method)[0]
    assert all(value.dtype == exact[name].dtype for name, value in trained.items())
    assert all(bool(torch.isfinite(value).all()) for value in trained.values())
    assert any(not torch.equal(value, before[name]) for name, value in trained.items())


class Before(StopAfter):
    """Keeps what a job was when its first step began, and stops after that step."""

    def __init__(self, job):
        super().__init__(1)
        self._job, self.states = job, None

    @property
    def is_set(self):
        self.states = states(self._job) if self.states is None else self.states
        return super().is_set


@pytest.mark.parametrize("method", EVERY)
def test_a_step_that_overflows_changes_neither_weights_nor_method(method, tmp_path):
    recipe = recipe_for(method, precision="fp16", on_nonfinite="skip")
    job = build_job(recipe, Ranks(), data_root=store_root())
    try:
        job.precision.scale.fill_(1e38)  # any gradient times this is infinite
        stop = Before(job)
        with pytest.raises(StoppedResumable):
            fit(job, emit=ignore, checkpoints=tmp_path, stop=stop, is_resumed=False)
        before, after = stop.states, states(job)
    finally:
        job.close()

    assert float(job.precision.scale) < 1e38, "the step did not overflow"
    assert [name for name in before if not same(before[name], after[name])] == []


def test_after_overflows_the_loss_scale_comes_down_and_training_goes_on(tmp_path):
    recipe = recipe_for("ogm", precision="fp16", on_nonfinite="skip")

    trained = train_here(recipe, data_root=store_root(), checkpoints=tmp_path)

    untrained = alone("ogm")[1]
    assert any(not torch.equal(value, untrained[name]) for name, value in trained.items())


def states(job):
    """Weights, and the method's own state, as one flat table."""
    method = {f"method.{k}": v for k, v in flat(job.method.state_dict()).items()}
    skipped = ("probes.", "feature_mean.", "feature_count")
    of_model = {n: v for n, v in weights(job).items() if not n.startswith(skipped)}
    return {**of_model, **method}


def flat(state, prefix=""):
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value.clone() if isinstance(value, torch.Tensor) else value
    return found


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(torch.nan_to_num(one.float()), torch.nan_to_num(other.float()))
    return one == other


def test_numbers_do_not_depend_on_whether_probes_are_trained(tmp_path):
    with_probes = recipe_for("none")
    log = with_probes.log.model_copy(update={"probes": False})
    without = with_probes.model_copy(update={"log": log})

    a = train_here(with_probes, data_root=store_root(), checkpoints=tmp_path / "a")
    b = train_here(without, data_root=store_root(), checkpoints=tmp_path / "b")

    shared = [name for name in a if not name.startswith("probes.")]
    assert len(shared) < len(a)
    assert all(torch.equal(a[name], b[name]) for name in shared)
