"""Comparisons from the answers of single samples, and how they are written down."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.report.html import render_html
from mmtool.diagnose.report.markdown import render_markdown, replaced
from mmtool.diagnose.report.overview import with_overview
from mmtool.diagnose.report.terminal import render
from mmtool.errors import RequestError
from mmtool.runlog.predictions import Predictions, predictions_path, write_predictions
from mmtool.runlog.suite import SuiteRecord, write_suite

Plant = Callable[..., Path]
NUM = 500


def answer(
    run: Path, rate: float, *, seed: int, protocol: str = "official", first: int = 0
) -> None:
    """Let a run be right on easy samples first, so that runs agree on which are hard."""
    rng = np.random.default_rng(seed)
    label = np.zeros(NUM, dtype=np.int64)
    ease = (np.arange(NUM) * 7919 % NUM) / NUM
    right = ease + 0.02 * rng.normal(size=NUM) < rate
    for split in ("val", "test"):
        head = {"split": split, "task": "single_label", "metric": "accuracy", "unimodal": "head"}
        head |= {"dataset_hash": "abc123", "protocol": protocol, "modalities": ["audio", "image"]}
        found = Predictions(
            head=head,
            row=np.arange(first, first + NUM),
            id=np.array([f"s{i}" for i in range(NUM)]),
            group=np.arange(NUM) // 5,
            label=label,
            answer=np.where(right, 0, 1),
            loss=np.zeros(NUM, dtype=np.float32),
            answers={
                m: np.where(ease < part, 0, 1) for m, part in (("audio", 0.3), ("image", 0.6))
            },
            present={m: np.ones(NUM, dtype=bool) for m in ("audio", "image")},
        )
        write_predictions(run, found)


def runs_of(plant: Plant, method: str, rate: float, seeds: int = 3) -> list[Path]:
    runs = [plant(f"{method}{i}", method=method, seed=i) for i in range(seeds)]
    for index, run in enumerate(runs):
        answer(run, rate, seed=index)
    return runs


def test_a_gain_on_the_same_samples_is_improved_where_counts_alone_would_not_tell(
    plant: Plant,
) -> None:
    report = diagnose(runs_of(plant, "none", 0.70) + runs_of(plant, "ogm", 0.74))
    change = report.metrics["comparison"]["changes"][0]

    assert change["test_wording"] == "improved"
    assert change["test_difference"] == pytest.approx(0.04, abs=0.01)
    low, high = change["test_difference_ci95"]
    assert 0 < low < 0.04 < high < 0.08
    assert report.metrics["comparison"]["bootstrap"]["clusters"]["test"] == NUM // 5
    assert "test accuracy improved" in report.verdict


def test_the_method_none_is_the_baseline_wherever_it_stands(plant: Plant) -> None:
    report = diagnose(runs_of(plant, "ogm", 0.74) + runs_of(plant, "none", 0.70))

    assert report.metrics["comparison"]["baseline"] == "none"


def test_modalities_and_spread_over_seeds_are_those_of_the_answers(plant: Plant) -> None:
    runs = runs_of(plant, "none", 0.70) + runs_of(plant, "ogm", 0.74)
    group = diagnose(runs).metrics["comparison"]["groups"][0]

    assert group["modalities"]["audio"]["test"] == pytest.approx(0.3, abs=0.01)
    assert group["test_mean"] == pytest.approx(0.7, abs=0.02)
    assert group["test_deviation"] >= 0


def test_runs_without_answers_are_judged_by_the_noise_floor_and_it_is_said(plant: Plant) -> None:
    runs = runs_of(plant, "none", 0.70) + runs_of(plant, "ogm", 0.74)
    for split in ("val", "test"):
        predictions_path(runs[-1], split).unlink()
    report = diagnose(runs)
    change = report.metrics["comparison"]["changes"][0]

    assert "acc_noise_floor" in change
    assert any("noise floor" in limit for limit in report.limits)


def test_damaged_answers_are_said_and_do_not_stop_the_comparison(plant: Plant) -> None:
    runs = runs_of(plant, "none", 0.70) + runs_of(plant, "ogm", 0.74)
    predictions_path(runs[0], "test").write_bytes(b"PK")

    assert any("cannot be read" in limit for limit in diagnose(runs).limits)


@pytest.mark.parametrize("other", [{"protocol": "speaker"}, {"first": 1}])
def test_answers_on_other_samples_are_refused(plant: Plant, other: dict[str, object]) -> None:
    runs = runs_of(plant, "none", 0.70, 1) + runs_of(plant, "ogm", 0.74, 1)
    answer(runs[1], 0.74, seed=0, **other)

    with pytest.raises(RequestError, match="answered on other val samples"):
        diagnose(runs)


def test_a_group_is_called_by_its_method_and_what_somebody_wrote(plant: Plant) -> None:
    runs = []
    for name, alpha in (("a", 0.8), ("b", 0.1)):
        run = plant(name, method="ogm")
        text = (run / "resolved.toml").read_text(encoding="utf-8")
        text = text.replace('"ogm"', f'"ogm"\nalpha = {alpha}\nnoise = false', 1)
        (run / "resolved.toml").write_text(text, encoding="utf-8")
        origins = {"method.alpha": "my.toml:9", "method.noise": "default"}
        (run / "env.json").write_text(json.dumps({"origins": origins}), encoding="utf-8")
        runs.append(run)
    groups = diagnose([plant("c"), *runs]).metrics["comparison"]["groups"]

    assert [group["label"] for group in groups] == ["none", "ogm alpha=0.8", "ogm alpha=0.1"]


def test_every_rendering_shows_groups_and_intervals(plant: Plant) -> None:
    report = diagnose(runs_of(plant, "none", 0.70) + runs_of(plant, "ogm", 0.74))

    for text in (
        render(report.as_dict(), width=160),
        render_html(report.as_dict()),
        render_markdown(report.as_dict(), command="mmtool diagnose x"),
    ):
        assert "95 % interval" in text
        assert "+0.04" in text
        assert "resamples" in text
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_folder_stands_for_its_finished_runs_in_the_order_of_its_suite(
    plant: Plant, tmp_path: Path
) -> None:
    folder = runs_of(plant, "ogm", 0.74)[0].parent
    runs_of(plant, "none", 0.70)
    plant("stopped", method="opm", state="stopped")
    names = {f"{m}{s}": f"{m}, seed {s}" for s in range(3) for m in ("none", "ogm")}
    published = [{"what": "OGM", "score": "24.5", "source": "somewhere", "note": ""}]
    record = SuiteRecord(
        "planted", "p.toml", "A planted suite.", (0, 1, 2), ("none", "ogm"),
        {**names, "mla_s0": "mla, seed 0"}, published,
    )  # fmt: skip
    write_suite(folder, record)
    report = diagnose([folder])

    assert report.run == "planted"
    assert report.metrics["comparison"]["groups"][0]["label"] == "none"
    assert "stopped is left out: it is stopped." in report.limits
    assert "Not trained yet: mla, seed 0." in report.limits
    page = render_markdown(report.as_dict(), command="mmtool diagnose runs/p")
    assert page.startswith("## planted\n\nA planted suite.\n")
    assert "| OGM | 24.5 | somewhere |" in page
    assert "mmtool train p.toml" in page


def test_a_section_replaces_the_one_of_its_name_and_leaves_the_others() -> None:
    page = replaced(replaced("# Results\n\nWords.\n", "## a\n\nold\n"), "## b\n\nkept\n")
    page = replaced(page, "## a\n\nnew\n")

    assert page == "# Results\n\nWords.\n\n## a\n\nnew\n\n## b\n\nkept\n"
    assert replaced(page, "## b\n\nnew\n").endswith("## b\n\nnew\n")
    assert replaced("", "## a\n") == "## a\n"


def test_a_page_of_several_suites_begins_with_all_of_them_side_by_side(plant: Plant) -> None:
    folder = runs_of(plant, "none", 0.70)[0].parent
    for method, rate in (("ogm", 0.78), ("opm", 0.62)):
        runs_of(plant, method, rate)
    methods = ("none", "ogm", "opm")
    runs = {f"{m}{s}": f"{m}, seed {s}" for s in range(3) for m in methods}
    write_suite(folder, SuiteRecord("one", "p.toml", "", (0, 1, 2), methods, runs, []))
    section = render_markdown(diagnose([folder]).as_dict(), command="again")
    one = with_overview(replaced("# Results\n\nWords.\n", section))
    both = with_overview(replaced(one, section.replace("## one", "## two")))

    assert "Overview" not in one
    head, overview, *_ = both.split("\n## ")
    assert head == "# Results\n\nWords.\n"
    table = [line[2:-2].split(" | ") for line in overview.splitlines() if line.startswith("| ")]
    assert table[0] == ["recipe", "one", "two", "improved", "regressed"]
    score = section.split("| none | 3 | ")[1].partition(" ")[0]
    assert table[2] == ["none", score, score, "", ""]
    for row, sign, mark, counts in ((3, "+", "↑", ["2", "0"]), (4, "-", "↓", ["0", "2"])):
        assert [cell[0] + cell[-1] for cell in table[row][1:3]] == [sign + mark] * 2
        assert table[row][3:] == counts
    assert with_overview(both) == both
    assert with_overview(both.partition("\n## two")[0]) == one


def test_an_overview_leaves_the_words_of_others_alone() -> None:
    table = "| recipe | x |\n| --- | --- |"
    page = f"# Mine\n\n{table}\n\n## Overview\n\nmine\n\n    ## code\n\n## b\nno table\n\n"

    assert with_overview(page) == page
