"""What a score is called in sentences; the log names it once, as `metric`."""

IN_WORDS = {"accuracy": "accuracy", "label_accuracy": "label accuracy", "r2": "R^2"}


def in_words(metric: str) -> str:
    """Give the name of a score for a sentence."""
    return IN_WORDS.get(metric, metric)


def score_key(metric: str) -> str:
    """Give the name of the fused score among the numbers of a finding."""
    return "acc" if metric == "accuracy" else metric


def constant_answer(metric: str) -> str:
    """Give what is called chance: the score of one and the same answer for every sample."""
    return "the mean" if metric == "r2" else "chance"


def constant_answer_key(metric: str) -> str:
    """Give the name of that score among the numbers of a finding."""
    return constant_answer(metric).replace(" ", "_")
