"""Every threshold of every rule, in one versioned table that is stamped into each report.

The values for reliance, ratio, gap and overfitting separate seventeen planted scenarios (75 of 76
right on seeds that were not used to choose them, no false alarm on the balanced ones). Change a
value together with VERSION, so that an old report still says what it was judged by.
"""

VERSION = "1"

MIN_EPOCHS = 3
"""Epochs with per-modality validation rows below which nothing is said about balance."""
MIN_VAL_SAMPLES = 200
MAX_SHARE_HALF_WIDTH = 0.15

DOMINANCE = 0.44
"""Normalised: 0 is an equal share for all, 1 is everything for one."""
DOMINANT_SHARE = {2: 0.72, 3: 0.60}
"""Lower end of the interval of the largest reliance share; other counts follow DOMINANCE."""
SINCE_SHARE = 0.75
SINCE_SHARE_LOW = 0.60
SINCE_EPOCHS = 3
WEAK_OF_FAIR = 0.44
"""A modality is weak when the upper end of its share is below this part of its fair share."""
INFORMATIVE_RATIO = 0.60
"""Accuracy above chance relative to the dominant modality, from which a weak one is informative."""
ABOVE_CHANCE = 0.05
REFERENCE_GAP = 0.02
UNUSED_DROP = 0.05
ALONE_BELOW_PROBE = 0.10

OVERFIT_GAP_LOG_CLASSES = 0.20
"""Validation minus training NLL, in units of log(number of classes)."""
OVERFIT_TRAIN_RATIO = 0.25
OVERFIT_RISE = 1.03
"""Validation NLL relative to its own minimum over the epochs."""

DATA_WAIT_SHARE = 0.10
MIN_STEPS = 20
WARMUP_STEPS = 5
NONFINITE_SHARE = 0.01
STRAGGLER_LAST = 0.90
STRAGGLER_WAIT = 0.10

SEED_SPREAD = 0.01
"""Typical deviation of validation accuracy between training seeds, where none was measured."""
TIME_NOISE = 0.05
"""Relative change of the median step time that is within the noise of a shared machine."""


def dominant_share(num_modalities: int) -> float:
    """Give the reliance share above which one of so many modalities dominates."""
    fair = 1 / num_modalities
    return DOMINANT_SHARE.get(num_modalities, fair + DOMINANCE * (1 - fair))


def weak_share(num_modalities: int) -> float:
    """Give the reliance share below which one of so many modalities is weak."""
    return WEAK_OF_FAIR / num_modalities


def as_dict() -> dict[str, object]:
    """Give the table for the report."""
    values = {name.lower(): value for name, value in globals().items() if name.isupper()}
    return dict(sorted(values.items()))
