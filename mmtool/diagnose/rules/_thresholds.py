"""The thresholds of the rules, read from `1.toml` when the first one is asked for.

    from mmtool.diagnose.rules import _thresholds as limits
    limits.MIN_EPOCHS

Each name below is a key of that file in capitals; the file says what it means.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

TABLE = "1.toml"

VERSION: str
MIN_EPOCHS: int
MIN_VAL_SAMPLES: int
MAX_SHARE_HALF_WIDTH: float
DOMINANCE: float
DOMINANT_SHARE_OF_2: float
DOMINANT_SHARE_OF_3: float
WEAK_OF_FAIR: float
SINCE_SHARE: float
SINCE_SHARE_LOW: float
SINCE_EPOCHS: int
INFORMATIVE_RATIO: float
TRAINED_RATIO: float
REFERENCE_GAP: float
UNINFORMATIVE_DROP: float
DEAD_RANK: float
DEAD_UPDATE: float
DEAD_PROBE: float
SYNERGY_GAP: float
HARMFUL_GAP: float
MEMORISED: float
OVERFIT_GAP_LOG_CLASSES: float
OVERFIT_TRAIN_RATIO: float
OVERFIT_RISE: float
MEMORISED_SHARE: float
CLASS_OWNED_SHARE: float
CLASS_OWNED_PART: float
CLASS_KNOWN_GAP: float
MIN_CLASS_SAMPLES: int
CLASS_FALSE_DISCOVERIES: float
COMPLEMENTARY_DROP: float
COMPLEMENTARY_GAIN: float
REDUNDANT_GAIN: float
STAKE: float
NUM_RESAMPLES: int
MIN_GROUPS: int
DATA_WAIT_SHARE: float
MIN_STEPS: int
WARMUP_STEPS: int
NONFINITE_SHARE: float
STRAGGLER_LAST: float
STRAGGLER_WAIT: float
QUEUE_EMPTY_SHARE: float
QUEUE_ALWAYS_EMPTY: float
LAUNCH_OPERATORS: int
LAUNCH_US: float
LAUNCH_IDLE: float
LAUNCH_DATA_SHARE: float
LAUNCH_SM_PERCENT: float
SYNC_IDLE: float
COMM_SHARE: float
PAUSE_STEPS: float
PAUSE_SHARE: float
PAUSE_LEAST_SHARE: float
MIN_PAUSES: int
EVALUATION_SHARE: float
MODALITY_SHARE: float
MODALITY_OF_FAIR: float
MEMORY_DRAM_PERCENT: float
MEMORY_TENSOR_PERCENT: float
COMPUTE_TENSOR_PERCENT: float
HOST_PRESSURE: float
PROCESSOR_SHARE: float
THROTTLED_SHARE: float
FRAGMENTED_RATIO: float
FOREIGN_MB: float
CONTEXT_MB: float
MIN_GPU_SAMPLES: int
ENERGY_WINDOW_S: float
SEED_SPREAD: float
TIME_NOISE: float


@cache
def _table() -> dict[str, Any]:
    text = files("mmtool.diagnose.rules").joinpath(TABLE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def __getattr__(name: str) -> Any:
    try:
        return _table()[name.lower()]
    except KeyError:
        raise AttributeError(f"{TABLE} has no threshold {name.lower()!r}") from None


def dominant_share(num_modalities: int) -> float:
    """Give the reliance share above which one of so many modalities dominates."""
    fair = 1 / num_modalities
    given = _table().get(f"dominant_share_of_{num_modalities}")
    return fair + __getattr__("DOMINANCE") * (1 - fair) if given is None else float(given)


def weak_share(num_modalities: int) -> float:
    """Give the reliance share below which one of so many modalities is weak."""
    return float(__getattr__("WEAK_OF_FAIR")) / num_modalities


def as_dict() -> dict[str, object]:
    """Give the table for the report."""
    return dict(sorted(_table().items()))
