"""What to try for each verdict: one row per remedy, tried from the top.

A row is left out where the recipe cannot take it, and where its method is already in use. No row
holds a tuned number: methods start at their defaults, and what a person has to sweep says so.
"""

from __future__ import annotations

from dataclasses import dataclass

ADDITIVE = frozenset({"concat", "sum", "cosine", "shared"})
SWEEP_ALPHA = "alpha is not tuned: start at 0.8 and sweep 0.2 to 1"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to try. In texts and settings {m} is the modality named, {others} all others."""

    codes: tuple[str, ...]
    text: str
    method: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    preconditions: tuple[str, ...] = ()
    fusions: frozenset[str] = frozenset()
    """Fusions it suits; empty means any."""
    new_fusion: str | None = None
    has_classes: bool = False
    """Whether it makes sense only where answers are classes."""
    min_modalities: int = 1
    needs_named: bool = False
    """Whether it is about exactly one modality."""


UNDER_TRAINED = ("under-trained",)
NEGLECTED = ("neglected",)
OVERFIT = ("overfit",)
ROBUSTNESS = "robustness"

REMEDIES: tuple[Remedy, ...] = (
    Remedy(
        UNDER_TRAINED,
        "give every modality a loss of its own, so that {m} is trained whatever the fusion makes "
        "of it",
        method="multi_loss",
    ),
    Remedy(
        (*UNDER_TRAINED, *NEGLECTED),
        "drop features of the modality that is ahead, more often the further it is ahead",
        method="opm",
        fusions=ADDITIVE,
        preconditions=("an additive fusion, for which a dropped feature is neutral",),
    ),
    Remedy(
        UNDER_TRAINED,
        "balance the gradients of the fused and the unimodal losses instead of adding them",
        method="mmpareto",
    ),
    Remedy(
        UNDER_TRAINED,
        "pull each encoder's features towards those of a model of its modality alone",
        method="umt",
        preconditions=(
            "time to train one model per modality first, which mmtool does",
            "better encoders are enough: the fused head may go on leaving {m} aside",
        ),
    ),
    Remedy(
        UNDER_TRAINED,
        "slow down the gradient of the modality that is ahead",
        method="ogm",
        fusions=ADDITIVE,
        preconditions=("an additive fusion, whose logits split by modality", SWEEP_ALPHA),
    ),
    Remedy(
        NEGLECTED,
        "bring the features to one length before changing any gradient: classify by cosines",
        method="mmcosine",
        new_fusion="cosine",
        has_classes=True,
        preconditions=("the fusion may be replaced by a sum of cosines",),
    ),
    Remedy(
        NEGLECTED,
        "leave modalities out at random, so that the head has to use {m}",
        method="modality_dropout",
    ),
    Remedy(
        OVERFIT,
        "stop each modality when its own validation loss no longer falls",
        method="mses",
        preconditions=("a validation split",),
    ),
    Remedy(
        OVERFIT,
        "weigh the losses by how much each generalises for how much it overfits",
        method="gblend",
        preconditions=("a validation split", "several times the training time"),
    ),
    Remedy(
        (*OVERFIT, "harmful"),
        "leave {m} out of half of the training samples, so that the rest has to be learnt",
        method="modality_dropout",
        settings=(("method.rates", "{{{m} = 0.5}}"),),
        preconditions=("the rate is a start, not tuned",),
        needs_named=True,
    ),
    Remedy(
        OVERFIT,
        "keep the weights of the best validation epoch, and augment {m}",
        settings=(("train.select", "best"),),
        preconditions=("a validation split",),
    ),
    Remedy(
        ("harmful",),
        "look for what of {m} holds on train only (a watermark, a recording device, another "
        "source), and train without it to see what it costs",
        settings=(("data.modalities", "{others}"),),
        min_modalities=2,
        needs_named=True,
    ),
    Remedy(
        ("low-information",),
        "do not balance: {m} says little, and the decision would move to what knows less. Keep it "
        "for robustness, or leave it out and save its computation",
        settings=(("data.modalities", "{others}"),),
        min_modalities=2,
    ),
    Remedy(
        ("uninformative",),
        "check that the samples of {m} belong to their labels and are not blank; if this is how "
        "it is, leave it out and save its computation",
        settings=(("data.modalities", "{others}"),),
        min_modalities=2,
    ),
    Remedy(
        ("dead-encoder",),
        "look at the encoder of {m}: activation, normalisation of its input, what is frozen; with "
        "a lower learning rate and clipped gradients it may not die",
        settings=(("train.clip_norm", "1.0"), ("train.warmup_epochs", "1")),
    ),
    Remedy(
        ("synergy",),
        "do not balance: methods with logits per modality have nothing to measure here. Train "
        "jointly, with a fusion that can express the interaction",
        method="none",
    ),
    Remedy(
        ("no-signal",),
        "check labels and alignment, then the learning rate",
        settings=(("train.lr", "1e-3"),),
        preconditions=("the learning rate is a start, not tuned",),
    ),
    Remedy(
        ("class-specific",),
        "do not hold the modalities to one pace: each knows classes that the other does not. Judge "
        "any method by its score per class",
    ),
    Remedy(
        ("balanced-redundant",),
        "one modality would do: compare the cost of the others with the robustness they buy",
    ),
    Remedy(
        (ROBUSTNESS,),
        "where {m} may be the only one left when it is used: leave modalities out at random while "
        "training",
        method="modality_dropout",
    ),
    Remedy(
        (ROBUSTNESS,),
        "where {m} may be the only one left when it is used: give every modality a loss of its own",
        method="multi_loss",
    ),
    Remedy(
        (ROBUSTNESS,),
        "where {m} may be the only one left when it is used: cosines bound what one modality can "
        "say",
        method="mmcosine",
        new_fusion="cosine",
        has_classes=True,
        preconditions=("the fusion may be replaced by a sum of cosines",),
    ),
)

INTERACTING = ("gated", "film")
"""Fusions that multiply features of modalities, tried where the fusion cannot express the task."""
