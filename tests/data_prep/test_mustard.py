import json
import pickle
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store
from mmtool.testing import layouts

PREPARER = load_preparer("mustard")
SHOWS = {"BBT": ("SHELDON", 6), "FRIENDS": ("ROSS", 5), "GOLDENGIRLS": ("DOROTHY", 3)}


def entries(count: int) -> dict[str, dict[str, object]]:
    """Give a table in an order that is not that of the names; one leading part and minor ones."""
    found = {}
    for number in range(count):
        show = tuple(SHOWS)[number % 3]
        leading, others = SHOWS[show]
        speaker = leading if number % 6 < 3 else f"PERSON{number // 6 % others}"
        found[f"{1 + number % 2}_{(count - number) * 60}"] = {
            "utterance": f"Number {number}.",
            "speaker": speaker,
            "context": ["Before.", "And then."][: number % 3],
            "context_speakers": ["PERSON"] * (number % 3),
            "show": show,
            "sarcasm": number // 3 % 2 == 0,
        }
    return found


def folds(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(count)
    return [(rows[rows % 5 != fold], rows[rows % 5 == fold]) for fold in range(5)]


def write(root: Path, count: int = 60, *, indices: str = "split_indices.p", data: str = "") -> Path:
    folder = root / data
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sarcasm_data.json").write_text(json.dumps(entries(count)), encoding="utf-8")
    if indices:
        (folder / indices).write_bytes(pickle.dumps(folds(count), protocol=2))
    return root


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def test_the_default_protocol_tests_on_friends_and_shares_no_speaker(tmp_path):
    clips = read(write(tmp_path))

    assert next(iter(clips[0].split)) == "speaker-independent"
    groups = defaultdict(set)
    for clip in clips:
        split = clip.split["speaker-independent"]
        groups[split].add(clip.group)
        assert (split == "test") == clip.group.startswith("FRIENDS ")
    assert groups["train"].isdisjoint(groups["val"])
    sizes = Counter(clip.split["speaker-independent"] for clip in clips)
    assert sizes["test"] == 20
    assert 40 / 7 <= sizes["val"] <= 2 * 40 / 7
    assert "BBT SHELDON" in groups["train"]


@pytest.mark.parametrize("indices", ["split_indices.p", "split_incides.p"])
@pytest.mark.parametrize("data", ["", "data"])
def test_the_folds_count_rows_of_the_table(tmp_path, indices, data):
    clips = read(write(tmp_path, indices=indices, data=data))

    assert [name for name in clips[0].split if name.startswith("fold")] == [
        f"fold-{number}" for number in range(5)
    ]
    for fold in range(5):
        tested = [at for at, clip in enumerate(clips) if clip.split[f"fold-{fold}"] == "test"]
        assert tested == list(range(fold, 60, 5))
        val = [clip for clip in clips if clip.split[f"fold-{fold}"] == "val"]
        assert len(val) in (4, 5, 6)
        assert len({clip.label for clip in val}) == 2


def test_without_the_indices_there_are_no_folds(tmp_path):
    assert set(read(write(tmp_path, indices=""))[0].split) == {"speaker-independent"}


def test_text_is_the_utterance_with_what_was_said_before_on_demand(tmp_path):
    write(tmp_path)

    assert [clip.sources["text"].text for clip in read(tmp_path)[:3]] == [
        "Number 0.",
        "Number 1.",
        "Number 2.",
    ]
    assert [clip.sources["text"].text for clip in read(tmp_path, context="true")[:3]] == [
        "Number 0.",
        "Before. Number 1.",
        "Before. And then. Number 2.",
    ]


@pytest.mark.parametrize(
    "place", ["utterances_final", "data/utterances_final", "mmsd_raw_data/utterances_final"]
)
def test_clips_lie_in_any_folder_of_the_archive(tmp_path, place):
    (write(tmp_path) / place).mkdir(parents=True)

    assert read(tmp_path)[0].sources["video"].path == tmp_path / place / "1_3600.mp4"
    assert locate(tmp_path, PREPARER.editions) is not None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[1, 2]", "not the table of MUStARD"),
        (b'{"1_60": {"utterance": "a", "context": [], "speaker": "X", "sarcasm": true}}', "'show'"),
        (b'{"1_60": ', "not the table of MUStARD"),
    ],
)
def test_another_table_is_refused(tmp_path, content, expected):
    (write(tmp_path) / "sarcasm_data.json").write_bytes(content)

    with pytest.raises(SourceError, match=r"every entry has") as caught:
        read(tmp_path)
    assert expected in str(caught.value)


def test_a_table_of_another_size_than_the_release_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"lists 600 utterances"):
        read(write(tmp_path, 600))


def test_the_whole_table_has_as_many_of_both_classes(tmp_path):
    clips = read(write(tmp_path, 690))
    assert Counter(clip.label for clip in clips) == {0: 345, 1: 345}

    table = entries(690)
    first = next(iter(table.values()))
    first["sarcasm"] = not first["sarcasm"]
    (tmp_path / "sarcasm_data.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(SourceError, match=r"lists 690 utterances, 34[46] of them sarcastic"):
        read(tmp_path)


def test_folds_of_another_table_are_refused(tmp_path):
    path = write(tmp_path) / "split_indices.p"
    for other in (folds(59), folds(61), [3, 4], [np.arange(60)]):
        path.write_bytes(pickle.dumps(other, protocol=2))
        with pytest.raises(SourceError, match=r"fold 0 of split_indices.p does not hold"):
            read(tmp_path)


def test_indices_that_bring_a_program_are_refused(tmp_path):
    (write(tmp_path) / "split_indices.p").write_bytes(pickle.dumps(Path("/")))

    with pytest.raises(SourceError, match=r"not a pickle that can be read"):
        read(tmp_path)


def test_a_release_of_real_media_becomes_a_store(tmp_path):
    try:
        truth = layouts.write_mustard(tmp_path / "raw", 16, context=False)
    except RuntimeError as error:
        pytest.skip(str(error))

    made = prepare(
        PrepareRequest("mustard", tmp_path / "raw", tmp_path / "store", options={"frames": "1"}),
        lambda _: None,
    )

    with open_store(made.path) as store:
        assert set(store.index.ids()) == set(truth.label)
        assert store.index.protocols[0] == "speaker-independent"
        tested = store.index.ids(store.index.rows("test"))
        assert set(tested) == set(truth.ids["speaker-independent", "test"])
