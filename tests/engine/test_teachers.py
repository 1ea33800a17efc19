"""Linked models: what trains them, whether they may teach, and what training sees of them."""

import json
import shutil

import pytest
import torch

from mmtool.config.dump import to_toml
from mmtool.config.links import alone, links_of
from mmtool.config.schema import Recipe
from mmtool.engine.build import build_job
from mmtool.engine.chain import NUMERICS, check_same, link_key, plan_links, refuse_unfinished
from mmtool.engine.distributed import Ranks
from mmtool.engine.export import export_weights, load_exported
from mmtool.engine.teaching import take_links
from mmtool.errors import Bug, CheckpointError, RequestError
from mmtool.testing.fakes import FakeModality, write_fake_store
from mmtool.testing.training import train_here, weights

SHAPES = {"audio": FakeModality((6,), "spectrogram"), "image": FakeModality((3, 8, 8), "frames")}
SPLITS = {"train": 48, "val": 12, "test": 9}


def recipe(method="umt", *, train=None, data=None, encoders=None, **options) -> Recipe:
    own = {"audio": {"name": "mlp", "hidden": (12,)}, "image": {"name": "cnn"}}
    with_teachers = {"teachers": {}} if method in ("umt", "g2d") else {}
    return Recipe.model_validate(
        {
            "data": {"dataset": "fake", "modalities": ("audio", "image"), **(data or {})},
            "model": {"encoders": {**own, **(encoders or {})}},
            "method": {"name": method, **with_teachers, **options},
            "train": {"epochs": 1, "batch_size": 16, "lr": 0.05, **(train or {})},
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_fake_store(folder / "fake", SHAPES, splits=SPLITS)
    write_fake_store(folder / "other", SHAPES, splits=SPLITS, seed=1)
    write_fake_store(folder / "more", SHAPES, splits=SPLITS, num_classes=4)
    return folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Train a recipe with one modality alone, as far as teachers look at its run."""

    def train(config, name="audio", where="fake"):
        run = tmp_path_factory.mktemp("teacher")
        config = alone(config, name)
        data = config.data.model_copy(update={"dataset": where})
        config = config.model_copy(update={"data": data})
        train_here(config, data_root=root, checkpoints=run / "ckpt")
        (run / "log").mkdir()
        (run / "resolved.toml").write_text(to_toml(config), encoding="utf-8")
        (run / "status.json").write_text('{"state": "done"}', encoding="utf-8")
        return run

    return train


@pytest.fixture(scope="module")
def runs(trained):
    """Finished runs of both modalities."""
    return {m: trained(recipe(), m) for m in ("audio", "image")}


def facts(run, root):
    config = recipe(teachers={"audio": str(run)})
    (audio, _) = plan_links(config, run.parent, root)
    return {"audio": audio.facts(audio.weights)}


def take(run, root, config=None):
    job = build_job(config or recipe(), Ranks(), data_root=root)
    try:
        return job, take_links(job, facts(run, root))
    finally:
        job.close()


def test_a_link_is_the_recipe_with_one_modality_and_without_balancing():
    config = recipe(data={"columns": {"audio": "audio", "image": "image"}}, train={"seed": 5})

    audio, image = links_of(config, ("audio", "image"))

    assert (audio.modality, audio.source, image.source) == ("audio", "auto", "auto")
    assert audio.recipe.data.modalities == ("audio",)
    assert audio.recipe.data.columns == {"audio": "audio"}
    assert audio.recipe.method.name == "none"
    assert audio.recipe.model.encoders == {"audio": config.model.encoders["audio"]}
    assert audio.recipe.train == config.train
    assert Recipe.model_validate(audio.recipe.model_dump()) == audio.recipe
    assert links_of(audio.recipe, ("audio",)) == ()


def test_a_switch_beside_the_teachers_turns_links_off_and_on():
    off = recipe("none", teachers={}, pretrained=False)
    on = recipe("none", teachers={}, pretrained=True)

    assert links_of(off, ("audio", "image")) == ()
    assert len(links_of(on, ("audio", "image"))) == 2


def test_a_teacher_of_an_unknown_modality_is_refused():
    with pytest.raises(RequestError, match="no modality 'adio' to teach") as caught:
        links_of(recipe(teachers={"adio": "auto"}), ("audio", "image"))
    assert "'audio'" in caught.value.fix


def test_the_key_follows_what_weights_depend_on_and_nothing_else(tmp_path, monkeypatch):
    def key(config, store="abc"):
        return link_key(alone(config, "audio"), store)

    usual = key(recipe())
    elsewhere = recipe().model_copy(
        update={"launch": recipe().launch.model_copy(update={"gpus": 4})}
    )

    assert usual == key(recipe("g2d", share=0.1)) == key(elsewhere)
    assert usual == key(recipe(data={"dataset": "/a/copy/fake"}))
    assert usual == key(recipe(encoders={"image": {"name": "mlp"}}))
    assert usual == key(recipe(train={"on_oom": "halve"}))
    changed = [
        key(recipe(), "another store"),
        key(recipe(train={"seed": 1})),
        key(recipe(train={"lr": 0.1})),
        key(recipe(encoders={"audio": {"name": "mlp"}})),
    ]
    assert len({usual, *changed}) == 5
    monkeypatch.setattr("mmtool.engine.chain.NUMERICS", NUMERICS + 1)
    assert key(recipe()) != usual


def test_the_key_follows_the_text_of_a_plugin_file(tmp_path):
    plugin = tmp_path / "encoder.py"
    config = alone(recipe(encoders={"audio": {"name": str(plugin)}}), "audio")
    plugin.write_text("one", encoding="utf-8")
    before = link_key(config, "abc")
    plugin.write_text("two", encoding="utf-8")

    assert link_key(config, "abc") != before


def test_links_that_were_never_trained_are_planned_by_their_key(root, tmp_path):
    planned = plan_links(recipe(), tmp_path, root)

    assert [one.modality for one in planned] == ["audio", "image"]
    assert all(one.weights is None for one in planned)
    assert all(one.source.parent == tmp_path / "teachers" for one in planned)
    assert planned[0].source.name == f"audio_{planned[0].key[:16]}"
    assert "is trained first" in planned[0].in_words()
    assert not (tmp_path / "teachers").exists()


def test_a_finished_run_teaches_with_the_weights_it_selected(runs, root):
    job, warnings = take(runs["audio"], root)
    teacher = job.teachers.members["audio"].model
    best = max((runs["audio"] / "ckpt").glob("best[0-9]*"))
    selected = load_exported(best).model.state_dict()

    assert warnings == []
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, selected[n]) for n, v in teacher.state_dict().items())


def test_teachers_are_no_part_of_the_model(runs, root):
    job, _ = take(runs["audio"], root)
    owned = {id(p) for members in job.groups.values() for _, p in members}
    optimised = {id(p) for group in job.optimizer.param_groups for p in group["params"]}

    for parameter in job.teachers.members["audio"].model.parameters():
        assert id(parameter) not in owned | optimised
    assert not any("teacher" in name for name in weights(job))


def test_an_exported_file_teaches_too(runs, root, tmp_path):
    file = tmp_path / "audio.safetensors"
    export_weights(runs["audio"], file)
    named = {"audio": str(file), "image": str(runs["image"])}
    audio, image = plan_links(recipe(teachers=named), tmp_path, root)

    job = build_job(
        recipe(),
        Ranks(),
        data_root=root,
        links={"audio": audio.facts(audio.weights), "image": image.facts(image.weights)},
    )
    job.close()

    assert list(job.teachers.members) == ["audio", "image"]
    assert job.warnings == ()


def test_a_teacher_of_sharded_checkpoints_is_read(trained, root):
    run = trained(recipe(train={"checkpoint": "sharded"}))

    job, _ = take(run, root)

    assert list(job.teachers.members) == ["audio"]


def test_answers_are_the_teachers_own_and_carry_no_gradient(runs, root):
    from mmtool.data.samplers import rank_share, shuffled

    job = build_job(recipe(), Ranks(), data_root=root)
    take_links(job, facts(runs["audio"], root))
    share = rank_share(shuffled(job.train_visits(), seed=0, epoch=0), 0, batch_size=16)
    (loaded,) = job.loader.run([share], epoch=None)
    batch = loaded.batches[0]
    found = job.teachers.answers(batch)
    model = job.teachers.members["audio"].model
    with torch.no_grad():
        features = model.encode(batch.alone("audio"))
        expected = model.fuse(features)
    job.close()

    assert torch.equal(found["teacher_logits"]["audio"], expected)
    assert torch.equal(found["teacher_features"]["audio"], features["audio"])
    assert not found["teacher_logits"]["audio"].requires_grad


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"encoders": {"audio": {"name": "mlp", "hidden": (7,)}}}, "another width"),
        ({"data": {"normalize": "none"}}, "other inputs"),
    ],
    ids=["width", "normalisation"],
)
def test_a_teacher_that_does_not_fit_is_refused_with_the_reason(trained, root, other, words):
    run = trained(recipe(**other))

    with pytest.raises(RequestError, match=words) as caught:
        take(run, root)
    assert caught.value.where == str(run)
    assert "method.teachers.audio=auto" in caught.value.fix


def test_a_teacher_of_another_modality_or_other_classes_is_refused(runs, trained, root):
    with pytest.raises(RequestError, match="a model of something else"):
        take(runs["image"], root)
    with pytest.raises(RequestError, match="has other answers"):
        take(trained(recipe(), where="more"), root)


def test_a_teacher_of_another_width_may_teach_answers_alone(trained, root):
    run = trained(recipe(encoders={"audio": {"name": "mlp", "hidden": (7,)}}))

    job, _ = take(run, root, recipe("g2d", features=0.0))

    assert list(job.teachers.members) == ["audio"]


def test_a_teacher_from_another_store_is_warned_about(trained, root):
    _, warnings = take(trained(recipe(), where="other"), root)

    (warning,) = warnings
    assert "another store" in warning
    assert "for testing" in warning


def test_an_unfinished_run_does_not_teach(runs, root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["audio"], copy)
    (copy / "status.json").write_text('{"state": "stopped"}', encoding="utf-8")

    with pytest.raises(RequestError, match="not finished") as caught:
        plan_links(recipe(teachers={"audio": str(copy)}), tmp_path, root)
    assert caught.value.fix == f"mmtool train --resume {copy}"


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_teacher_is_refused_before_anything_starts(runs, root, tmp_path, harm):
    copy = tmp_path / "copy"
    shutil.copytree(runs["audio"], copy)
    best = max((copy / "ckpt").glob("best[0-9]*"))
    if harm == "cut":
        file = best / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    else:
        shutil.rmtree(best)

    with pytest.raises(CheckpointError, match="the audio teacher is damaged") as caught:
        plan_links(recipe(teachers={"audio": str(copy)}), tmp_path, root)
    assert str(copy) in caught.value.where
    assert caught.value.fix


def test_a_damaged_export_names_the_modality_and_the_way_out(runs, root, tmp_path):
    file = tmp_path / "audio.safetensors"
    export_weights(runs["audio"], file)
    file.write_bytes(file.read_bytes()[:200])
    (audio, _) = plan_links(recipe(teachers={"audio": str(file)}), tmp_path, root)

    job = build_job(recipe(), Ranks(), data_root=root)
    with pytest.raises(CheckpointError, match="the audio teacher cannot be read") as caught:
        take_links(job, {"audio": audio.facts(audio.weights)})
    job.close()
    assert caught.value.where == str(file)


def test_encoders_begin_with_the_weights_of_linked_models(runs, root):
    plugin = "none"
    config = recipe(plugin, teachers={}, pretrained=True)
    method = config.method
    plain = config.model_copy(update={"method": type(method)(name="none")})
    job = build_job(plain, Ranks(), data_root=root)
    job.recipe = config
    take_links(job, facts(runs["audio"], root))
    best = max((runs["audio"] / "ckpt").glob("best[0-9]*"))
    selected = load_exported(best).model.state_dict()
    job.close()

    begun = {n: v for n, v in weights(job).items() if n.startswith("encoders.audio.")}
    assert begun
    assert all(torch.equal(v, selected[n]) for n, v in begun.items())
    assert not job.teachers.members


def test_a_run_without_its_models_is_a_bug(root):
    with pytest.raises(Bug, match="without the models it builds on"):
        build_job(recipe(), Ranks(), data_root=root, links={})


def test_stand_ins_are_equal_everywhere_and_leave_the_model_alone(root):
    jobs = [build_job(recipe(m), Ranks(), data_root=root) for m in ("umt", "umt", "none")]
    one, two, without = jobs
    for job in jobs:
        job.close()

    for modality, teacher in one.teachers.members.items():
        other = two.teachers.members[modality].model.state_dict()
        assert all(torch.equal(v, other[n]) for n, v in teacher.model.state_dict().items())
    plain = weights(without)
    assert all(torch.equal(v, plain[n]) for n, v in weights(one).items())


def test_the_facts_of_a_link_survive_being_written(runs, root):
    found = facts(runs["audio"], root)

    assert json.loads(json.dumps(found)) == found
    assert found["audio"]["run"] == str(runs["audio"])


def test_a_resumed_run_keeps_the_teachers_it_began_with(tmp_path):
    before = {"audio": {"sha256": "a", "weights": "old"}}

    check_same(before, {"audio": {"sha256": "a", "weights": "moved"}}, tmp_path)
    check_same({}, {"audio": {"sha256": "b", "weights": "new"}}, tmp_path)
    with pytest.raises(RequestError, match="not the one this run began with") as caught:
        check_same(before, {"audio": {"sha256": "b", "weights": "new"}}, tmp_path)
    assert "--allow-change" in caught.value.fix


def test_where_links_cannot_be_trained_first_the_way_out_is_said(root, tmp_path):
    planned = plan_links(recipe(), tmp_path, root)

    refuse_unfinished([], why="tasks")
    with pytest.raises(RequestError, match="audio, image alone has to be trained first") as caught:
        refuse_unfinished(planned, why="tasks")
    assert caught.value.why == "tasks"
