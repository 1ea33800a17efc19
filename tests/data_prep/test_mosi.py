import pickle
from pathlib import Path

import numpy as np
import pytest

from mmtool.config.load import load_recipe
from mmtool.errors import SourceError
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store
from mmtool.testing import layouts
from mmtool.testing.training import train_here

PREPARER = load_preparer("mosi")
SIZES = {"train": 12, "valid": 4, "test": 6}


def features(rng: np.random.Generator, shape: tuple[int, int, int], *, front: bool) -> np.ndarray:
    """Draw series that are filled up with zeros; the first one keeps one step alone."""
    values = rng.normal(size=shape).astype(np.float32)
    for number in range(len(values)):
        length = 1 + number % shape[1]
        values[number, slice(0, -length) if front else slice(length, None)] = 0
    return values


def mosi(form: str) -> dict[str, dict[str, object]]:
    rng = np.random.default_rng(0)
    found = {}
    for part, count in SIZES.items():
        steps = (9, 9, 9) if form == "aligned" else (5, 11, 7)
        entry: dict[str, object] = {
            key: features(rng, (count, length, width), front=form == "aligned")
            for key, length, width in zip(
                ("text", "audio", "vision"), steps, (6, 5, 4), strict=True
            )
        }
        entry["audio"][1][np.flatnonzero(entry["audio"][1].any(1))[0], 2] = -np.inf
        entry["labels"] = (np.arange(count, dtype=np.float32) % 7 - 3).reshape(-1, 1, 1)
        entry["id"] = np.array([f"{part}{n // 2}[{n}]".encode() for n in range(count)])
        found[part] = entry
    return found


def write(root: Path, form: str, name: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(pickle.dumps(mosi(form), protocol=2))
    return root


@pytest.mark.parametrize(
    ("form", "name"), [("aligned", "mosi_data.pkl"), ("noalign", "mosi_data_noalign.pkl")]
)
def test_features_become_a_store_with_the_sentiment_beside_the_class(tmp_path, form, name):
    write(tmp_path / "raw", form, name)

    made = prepare(PrepareRequest("mosi", tmp_path / "raw", tmp_path / "store"), lambda _: None)

    value = mosi(form)
    with open_store(made.path) as store:
        index = store.index
        assert store.classes == ("-3", "-2", "-1", "0", "1", "2", "3")
        assert store.modalities == ("audio", "text", "vision")
        assert {split: len(index.rows(split)) for split in ("train", "val", "test")} == {
            "train": 12,
            "val": 4,
            "test": 6,
        }
        row = index.ids().index("train0[1]")
        values, _ = store.gather("audio", np.array([row]))
        length = int(store.lengths("audio")[row])
        assert np.isfinite(values).all()
        used = np.flatnonzero(value["train"]["audio"][1].any(1))
        start = min(
            int(np.flatnonzero(value["train"][key][1].any(1))[0])
            for key in ("text", "audio", "vision")
        )
        expected = value["train"]["audio"][1][
            start if form == "aligned" else used[0] : used[-1] + 1
        ]
        assert length == len(expected)
        np.testing.assert_array_equal(values[0][:length], np.where(np.isinf(expected), 0, expected))


def test_neutral_takes_no_part_on_demand_and_groups_are_videos(tmp_path):
    root = write(tmp_path / "raw", "aligned", "mosi_data.pkl")
    options = parse_options(PREPARER, {"classes": "2-negative-positive"})

    clips = {clip.id: clip for clip in PREPARER.clips(root, options)}

    assert PREPARER.classes(root, options) == ["negative", "positive"]
    assert {c.value for c in clips.values() if c.skip == "neutral"} == {0.0}
    assert {c.label for c in clips.values() if c.value and c.value > 0} == {1}
    assert clips["train0[1]"].group == clips["train0[0]"].group == "train0"
    assert clips["valid1[3]"].split == {"official": "val"}
    assert clips["train0[1]"].value == -2.0


@pytest.mark.parametrize(
    "name", ["mosi_data.pkl", "aligned_50.pkl", "unaligned_50.pkl.gz", "mosi_raw.pkl", "label.csv"]
)
def test_every_layout_is_recognised(tmp_path, name):
    (tmp_path / "Processed").mkdir()
    (tmp_path / "Processed" / name).touch()

    found = locate(tmp_path, PREPARER.editions)
    assert found is not None
    assert found.root == tmp_path / "Processed"


def test_a_pickle_of_mosei_under_the_same_name_is_refused(tmp_path):
    value = {
        part: {
            **{key: np.ones((count, 1, 1), np.float16) for key in ("text", "audio", "vision")},
            "labels": np.zeros((count, 1, 1)),
            "id": [f"{part}{n}$_$1" for n in range(count)],
        }
        for part, count in (("train", 2000), ("valid", 100), ("test", 100))
    }
    (tmp_path / "aligned_50.pkl").write_bytes(pickle.dumps(value))

    with pytest.raises(SourceError, match=r"2,200 utterances, CMU-MOSI has 2,199") as caught:
        list(PREPARER.clips(tmp_path, parse_options(PREPARER, {})))
    assert caught.value.fix.startswith("mmtool prepare mosei")


def test_videos_with_a_table_become_a_store(tmp_path):
    segmented = tmp_path / "raw/Raw/Video/Segmented"
    segmented.mkdir(parents=True)
    try:
        truth = layouts.write_mustard(tmp_path / "clips", 8, context=False, bad=False, seconds=0.7)
    except RuntimeError as error:
        pytest.skip(str(error))
    rows = ["video_id,clip_id,text,label,annotation,mode"]
    for number, name in enumerate(sorted(truth.label)):
        (tmp_path / f"clips/utterances_final/{name}.mp4").rename(segmented / f"v{number}_3.mp4")
        mode = ("train", "train", "valid", "test")[number % 4]
        rows.append(f"v{number},3,word {number},{number - 3:.1f},Any,{mode}")
    (tmp_path / "raw/label.csv").write_text("\n".join(rows[:-1]), encoding="cp1252")

    made = prepare(
        PrepareRequest("mosi", tmp_path / "raw", tmp_path / "store", options={"frames": "1"}),
        lambda _: None,
    )

    assert made.report["unlisted"] == 1
    with open_store(made.path) as store:
        assert store.index.ids() == [f"v{number}_3" for number in range(7)]


def test_its_recipe_learns_the_sentiment_as_a_number(tmp_path):
    write(tmp_path / "raw", "aligned", "mosi_data.pkl")
    prepare(PrepareRequest("mosi", tmp_path / "raw", tmp_path / "mosi"), lambda _: None)
    recipe = load_recipe("mosi_regression").recipe
    train = recipe.train.model_copy(update={"epochs": 1, "batch_size": 6})
    events = []

    train_here(
        recipe.model_copy(update={"train": train}),
        data_root=tmp_path,
        checkpoints=tmp_path / "ckpt",
        emit=lambda kind, **fields: events.append(fields) if kind == "epoch" else None,
    )

    assert [(e["split"], e["n"], e["metric"]) for e in events] == [
        ("train", 12, "r2"),
        ("val", 4, "r2"),
        ("test", 6, "r2"),
    ]
