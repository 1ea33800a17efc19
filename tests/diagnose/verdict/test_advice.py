"""Advice can be pasted: no line of it is refused by the real loader or by the engine's checks."""

import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mmtool import registry
from mmtool.cli.method_facts import method_facts
from mmtool.config.load import load_recipe
from mmtool.data.dataset import Dataset
from mmtool.diagnose.load import Run
from mmtool.diagnose.verdict.advice import Advice, advise, facts_of
from mmtool.diagnose.verdict.estimates import Quantity
from mmtool.diagnose.verdict.judge import Judgement, verdict_rules
from mmtool.diagnose.verdict.method_needs import lacks, method_needs
from mmtool.diagnose.verdict.remedies import REMEDIES
from mmtool.engine.combinations import check_exchange, check_needs
from mmtool.engine.recipe_model import build_method
from mmtool.runlog.reader import RunTables

MODALITIES = ("audio", "image", "text", "touch")
CODES = sorted({str(rule.CODE) for rule in verdict_rules()} - {"inconclusive", "one-modality"})
OGM = '[method]\nname = "ogm"\nalpha = 0.3\n'


def run_of(
    folder: Path,
    *,
    fusion: str = "concat",
    num: int = 2,
    task: str = "single_label",
    optimizer: str = "sgd",
    method: str = '[method]\nname = "none"\n',
) -> Run:
    """Give a run whose recipe is on disk as training leaves it."""
    names = MODALITIES[:num]
    encoders = "".join(f'[model.encoders.{m}]\nname = "cnn"\nwidth = 8\n' for m in names)
    text = (
        f'[data]\ndataset = "planted"\n[model]\nunimodal = "auto"\n'
        f'[model.fusion]\nname = "{fusion}"\n{encoders}{method}'
        f'[train]\nepochs = 3\nbatch_size = 32\nlr = 0.01\noptimizer = "{optimizer}"\n'
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolved.toml").write_text(text, encoding="utf-8")
    recipe = tomllib.loads(text)
    head = {
        "modalities": list(names),
        "task": task,
        "method": recipe["method"]["name"],
        "fusion": fusion,
    }
    tables = cast(RunTables, SimpleNamespace(head=head))
    return Run(path=folder, tables=tables, recipe_text=text, recipe=recipe)


def judged(code: str, modalities: tuple[str, ...]) -> Judgement:
    return Judgement(code, modalities, "", "warn", 1.0, Counter(), None)


def advice_on(run: Run, code: str) -> list[Advice]:
    lost = Quantity(0.4, np.full(10, 0.4), 100)
    return advise(run, judged(code, ("audio",)), {"audio": lost})


def settings_of(command: str) -> list[str]:
    words = shlex.split(command.partition("\n")[0])
    return [words[at + 1] for at, word in enumerate(words) if word == "-s"]


def refuse_what_the_engine_refuses(recipe: Any, run: Run) -> None:
    names = recipe.data.modalities or run.modalities
    dataset = SimpleNamespace(
        modalities=names, task=run.task, rows=lambda _: range(300), protocol="official"
    )
    method = build_method(recipe, None)
    check_needs(recipe, cast(Dataset, dataset), method)
    needs = method.asked()
    if recipe.model.fusion.name == "mmtm":
        check_exchange(recipe, needs)
    if needs.unimodal not in ("none", "any"):
        assert recipe.model.unimodal in ("auto", needs.unimodal)


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("fusion", registry.names("fusion"))
def test_no_advice_is_refused_for_any_fusion_number_of_modalities_and_task(
    tmp_path: Path, fusion: str, task: str
) -> None:
    tried = set()
    for num, optimizer, method in ((2, "sgd", OGM), (4, "adamw", '[method]\nname = "none"\n')):
        run = run_of(
            tmp_path / str(num),
            fusion=fusion,
            num=num,
            task=task,
            optimizer=optimizer,
            method=method,
        )
        for one in (one for code in CODES for one in advice_on(run, code)):
            if not one.recipe_patch or (num, one.recipe_patch) in tried:
                continue
            tried.add((num, one.recipe_patch))
            by_command = load_recipe(str(run.path / "resolved.toml"), settings_of(one.command))
            refuse_what_the_engine_refuses(by_command.recipe, run)
    assert len(tried) >= 8


def test_the_patch_says_the_same_as_the_command(tmp_path: Path) -> None:
    run = run_of(tmp_path, num=3, method=OGM)
    patches = {one.recipe_patch: one for code in CODES for one in advice_on(run, code)}
    for text, one in patches.items():
        if text:
            (tmp_path / "patch.toml").write_text(text, encoding="utf-8")
            by_patch = load_recipe(str(tmp_path / "patch.toml"), ()).recipe
            by_command = load_recipe(str(tmp_path / "resolved.toml"), settings_of(one.command))
            assert by_patch == by_command.recipe
    assert len(patches) > 10


def test_the_advice_for_each_verdict_names_its_preconditions_and_no_tuned_number(
    tmp_path: Path,
) -> None:
    run = run_of(tmp_path, optimizer="adamw")
    for code in CODES:
        for one in advice_on(run, code):
            assert one.text
            assert one.as_dict()["preconditions"] == list(one.preconditions)
            assert "alpha=" not in one.command
            assert "alpha =" not in one.recipe_patch


def test_alpha_is_something_to_sweep(tmp_path: Path) -> None:
    (ogm,) = [one for one in REMEDIES if one.method == "ogm"]
    assert any("start at 0.8 and sweep 0.2 to 1" in words for words in ogm.preconditions)


def test_a_gradient_scale_is_advised_under_adam_only_as_one_of_the_update(tmp_path: Path) -> None:
    for code in CODES:
        for one in advice_on(run_of(tmp_path, optimizer="adamw"), code):
            if one.method == "ogm":
                assert "method.apply=update" in one.command
            elif one.method and one.method != "opm":
                needs = method_needs(one.method)
                assert needs is not None
                assert not needs.scales_gradients


@pytest.mark.parametrize("code", ["low-information", "synergy"])
def test_where_balancing_would_hurt_no_method_is_advised(tmp_path: Path, code: str) -> None:
    found = advice_on(run_of(tmp_path, method=OGM), code)
    assert found[0].text.startswith("do not balance")
    assert {one.method for one in found} <= {None, "none"}
    if code == "synergy":
        assert "-s method=none" in found[0].command


def test_a_method_already_in_use_is_not_advised_again(tmp_path: Path) -> None:
    for used in ("multi_loss", "opm", "modality_dropout"):
        run = run_of(tmp_path / used, method=f'[method]\nname = "{used}"\n')
        assert used not in {one.method for code in CODES for one in advice_on(run, code)}


def test_the_fusion_decides_what_is_advised(tmp_path: Path) -> None:
    additive = {one.method for one in advice_on(run_of(tmp_path / "a"), "under-trained")}
    gated = advice_on(run_of(tmp_path / "b", fusion="gated"), "under-trained")
    assert "opm" in additive
    assert "opm" not in {one.method for one in gated}
    assert len(gated) == 3


def test_prediction_bias_names_methods_against_it_only_where_something_is_lost(
    tmp_path: Path,
) -> None:
    run = run_of(tmp_path)
    named = {one.method for one in advice_on(run, "balanced")}
    assert named == {"modality_dropout", "multi_loss", "mmcosine"}
    nothing = {"audio": Quantity(0.0, np.zeros(10), 100)}
    assert advise(run, judged("balanced", ()), nothing) == []


def test_an_inconclusive_record_is_answered_with_the_commands_that_decide_it(
    tmp_path: Path,
) -> None:
    run = run_of(tmp_path)
    found = advise(run, judged("inconclusive", ("audio",)))
    assert found[0].command.endswith("--deep")
    assert "data.modalities=audio" in found[1].command
    loaded = load_recipe(str(run.path / "resolved.toml"), settings_of(found[1].command))
    assert loaded.recipe.data.modalities == ("audio",)


def test_what_is_read_of_a_method_is_what_the_command_line_says_of_it() -> None:
    """Both read the same declarations; a row of one must not miss what the other refuses."""
    names = registry.names("methods")
    assert len(names) > 25
    for name in names:
        needs = method_needs(name)
        assert needs is not None
        told = " ".join(method_facts(registry.get("methods", name)).constraints)
        assert ("fusion" in told) is bool(needs.fusions)
        assert ("unimodal logits" in told) is (needs.unimodal not in ("none", "any"))
        assert bool(re.search(r"M >= 2|M = 2|<= M <=", told)) is (needs.min_modalities > 1)


def test_every_method_of_the_table_exists_and_unknown_ones_are_never_advised(
    tmp_path: Path,
) -> None:
    known = registry.names("methods")
    assert {one.method for one in REMEDIES} - {None} <= set(known)
    assert (
        lacks("no_such_method", facts_of(run_of(tmp_path))) == "there is no method no_such_method"
    )


@pytest.mark.parametrize("code", [*CODES, "inconclusive"])
def test_a_run_of_another_loop_is_told_what_to_do_without_commands_that_cannot_work(
    code: str, tmp_path: Path
) -> None:
    trained = run_of(tmp_path)
    told = [one.text for one in advice_on(trained, code)]
    (tmp_path / "resolved.toml").unlink()

    advice = advice_on(trained, code)

    assert bool(advice) == bool(told)
    assert not any(one.command or one.recipe_patch for one in advice)
    if code == "inconclusive":
        assert [one.text for one in advice] == [
            "train audio alone, log that too, and diagnose both runs together"
        ]
    else:
        assert [one.text for one in advice] == told
