"""What a recipe may say: frozen, strict models; the docstring under a field is its help text.

Plugin sections (`[method]`, `[model.fusion]`, `[model.encoders.<modality>]`) are `Plugin` here; the
options of the named plugin are checked against that plugin's own `Options` model (see `load`).
A plugin section may be a bare name: `fusion = "concat"` equals `fusion = {name = "concat"}`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


class Section(BaseModel):
    """Base of every section and of every plugin's `Options`."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Options(Section):
    """Base of a plugin's own options; declare fields with defaults and a docstring each."""


class Plugin(BaseModel):
    """A named plugin with its options, as written; `load` checks them against its `Options`."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """Name from `mmtool list`, or a file: `./my_method.py`."""

    @property
    def options(self) -> dict[str, Any]:
        """The options as written in the recipe."""
        return dict(self.model_extra or {})


def _as_plugin(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


PluginField = Annotated[Plugin, BeforeValidator(_as_plugin)]


class Augment(Section):
    """Random image augmentation of one modality, drawn on the device per sample while training."""

    size: Count | None = None
    """Side of the square crop in pixels; unset keeps the stored shape. Also the evaluation size."""
    crop_scale: Annotated[tuple[float, float], as_tuple] | None = None
    """Range of the cropped share of the area, for example [0.08, 1.0]; unset does not crop."""
    flip: bool = False
    """Mirror horizontally with probability one half."""


class DataConfig(Section):
    """Which prepared dataset is read, and how."""

    dataset: str
    """Name of a store under the data root (see `mmtool list datasets`), a path to one, or a URL:
    s3://bucket/store, whose shards are fetched into a local cache as they are needed."""
    split: str | None = None
    """Split protocol of the store, for example "speaker"; unset takes the store's default."""
    task: Literal["single_label", "multi_label", "regression"] = "single_label"
    """What is learnt: one class per sample, any number of classes per sample (the store has several
    per row, or its one class counts as the only answer), or the number the store keeps beside the
    label, as it stands: it is not normalised, and samples without one are left out."""
    modalities: Annotated[tuple[str, ...], as_tuple] | None = None
    """Modalities to use; unset takes all of the store."""
    columns: dict[str, str] = {}
    """Store column that feeds a modality, where it has several: {audio = "audio.logmel"}."""
    augment: dict[str, Augment] = {}
    """Augmentation by modality."""
    normalize: Literal["train", "none"] = "train"
    """Subtract the training split's mean and divide by its deviation, or leave the values alone."""
    placement: Literal["auto", "device", "host"] = "auto"
    """Where columns lie while training: all of them on the device, or memory-mapped on the host and
    sent batch by batch; auto chooses a GPU if they take a quarter of its free memory or less. The
    numbers are the same."""


class ModelConfig(Section):
    """Encoders, fusion and where logits per modality come from."""

    fusion: PluginField = Plugin(name="concat")
    """How encoder features become logits (see `mmtool list fusion`)."""
    unimodal: Literal["auto", "decompose", "head", "ablate"] = "auto"
    """Source of unimodal logits; auto decomposes additive fusions and ablates the others."""
    encoders: dict[str, PluginField]
    """One encoder per modality (see `mmtool list encoders`)."""


class TrainConfig(Section):
    """Optimisation. `batch_size` is global: 1, 2 or 4 ranks are the same experiment."""

    epochs: Count
    batch_size: Count
    """Samples per optimiser step over all ranks and micro-batches."""
    accumulate: Count = 1
    """Micro-batches into which each rank's share of a batch is cut; the result is the same."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 1e-3
    momentum: Fraction = 0.9
    """Momentum of SGD; AdamW does not use it."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_epochs: Count = 70
    """Epochs between decays of the step schedule."""
    step_factor: Fraction = 0.1
    """Factor of each decay of the step schedule."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    """Linear warm-up at the start, in (fractions of) epochs."""
    clip_norm: Positive | None = None
    """Largest Euclidean norm of the whole gradient; unset does not clip."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: Annotated[int, Field(ge=0)] = 0
    select: Literal["best", "last"] = "best"
    """Weights evaluated on test at the end; best means best on validation, never on test."""
    checkpoint_every_steps: Count | None = None
    """Save the training state every so many steps as well as after each epoch."""
    checkpoint: Literal["gathered", "sharded"] = "gathered"
    """One file with everything, or a file per rank, for models that one rank cannot hold whole;
    either is resumed on any number of ranks."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """After a step with a non-finite loss or gradient, which never reaches the weights: stop, or
    go on with the next step."""
    max_bad_steps: Count = 5
    """With skip, consecutive such steps after which the run stops all the same."""
    on_oom: Literal["stop", "halve"] = "stop"
    """When a rank runs out of memory: stop with advice, or repeat the step in twice as many
    micro-batches and keep to that."""


class LaunchConfig(Section):
    """Where the run executes; the command line sets these with --gpus and --device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: Count = 1
    """Number of ranks; with device = "cpu" these are CPU processes."""
    threads: Count | None = None
    """CPU threads per rank; unset shares the visible cores among the ranks."""
    sync: Literal["explicit", "fsdp", "ddp"] = "explicit"
    """How ranks share gradients: summed after the last backward pass (right for every method),
    encoders sharded over the ranks (FSDP2, for what does not fit), or torch's DDP (single-loss
    methods only)."""
    overlap: bool = False
    """With explicit sync, begin to sum gradients while backward still runs; the result is the
    same."""
    compile: bool = False
    """Compile each encoder with torch.compile; takes a minute or so before the first step."""
    streams: bool = False
    """Run the encoders of different modalities on streams of their own; a GPU only."""
    shard_from: Annotated[int, Field(ge=0)] = 1_000_000
    """With fsdp, encoders of fewer parameters stay whole on every rank."""
    check_every_steps: Count = 200
    """Steps between two comparisons of all weights across ranks, which must be equal."""
    timeout_s: Positive = 600.0
    """Longest time a rank waits for the others before the run fails; one process alone fails when
    for that long no step begins and its training thread only waits."""
    grace_s: Positive = 120.0
    """Longest time between asking the ranks to stop and killing them."""
    max_restarts: Annotated[int, Field(ge=0)] | None = None
    """Restarts from the last checkpoint after a rank was killed, hung or lost its connection,
    never after an error of the program; unset is 0, and 1 under SLURM."""


class LogConfig(Section):
    """What a run leaves behind for `mmtool diagnose`."""

    every_steps: Count = 10
    """Steps between two flushes of the step metrics from the device."""
    train_samples: Count = 512
    """Training samples on which accuracy is measured beside validation; always the same."""
    train_every_epochs: Count | None = None
    """Epochs between two such measurements; unset takes every epoch of a short run, and of a long
    one as few as keep their cost near half a percent of its time, but at least ten."""
    probes: bool = True
    """Train a linear probe on each encoder's detached features, to see what it has learnt."""
    system_every_s: Positive = 1.0
    """Seconds between two samples of CPU, memory and GPU."""
    flip_samples: Count = 512
    """Validation samples over which a modality is permuted after every epoch; always the same."""
    norms_every_steps: Count = 10
    """Steps between two measurements of the encoders' parameter and update norms."""
    thin_norms: bool = True
    """Take norms half as often from an epoch on in which measuring cost more than 1 % of time."""


class Recipe(Section):
    """One experiment."""

    data: DataConfig
    model: ModelConfig
    method: PluginField = Plugin(name="none")
    """Balancing method (see `mmtool list methods`)."""
    train: TrainConfig
    launch: LaunchConfig = LaunchConfig()
    log: LogConfig = LogConfig()
