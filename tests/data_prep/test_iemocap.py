import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip
from mmtool.prepare.editions import locate
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store
from mmtool.testing import layouts

PREPARER = load_preparer("iemocap")
FACTS = PREPARER.module
EMOTIONS = ("ang", "hap", "exc", "sad", "neu", "fru", "xxx")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def dialogue(root: Path, name: str, labels, *, begin: str = "") -> None:
    """Write the rated and the spoken lines of a dialogue; speakers take turns."""
    folder = root / f"Session{int(name[3:5])}" / "dialog"
    rated, spoken = [begin + "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"], []
    for number, label in enumerate(labels):
        turn = f"{name}_{'FM'[number % 2]}{number // 2:03d}"
        rated += [
            "",
            f"[{number + 0.25:.4f} - {number + 1.5:.4f}]\t{turn}\t{label}\t[2.5, 2.5, 2.5]",
            "C-E2:\tSadness;\t()",
        ]
        spoken.append(f"{turn} [{number:08.4f}-{number + 1:08.4f}]: Line {number} of {name}.")
    spoken += [f"{name}_FXX0 [001.0000-002.0000]: Mm-hm.", "M: what?"]
    for kind, lines in (("EmoEvaluation", rated), ("transcriptions", spoken)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{name}.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")


@pytest.fixture
def release(tmp_path) -> Path:
    for session in range(1, 6):
        dialogue(tmp_path, f"Ses0{session}F_impro01", EMOTIONS * 2)
        dialogue(tmp_path, f"Ses0{session}M_script01_1", EMOTIONS * 2)
    dialogue(tmp_path, "Ses03M_impro05a", EMOTIONS)
    dialogue(tmp_path, "Ses05M_script01_1b", EMOTIONS)
    return tmp_path


@pytest.mark.parametrize(
    ("label_set", "names", "per_round"),
    [
        ("4", ["ang", "hap+exc", "sad", "neu"], 5),
        ("4-no-exc", ["ang", "hap", "sad", "neu"], 4),
        ("5", ["ang", "exc", "fru", "neu", "sad"], 5),
        ("6", ["hap", "sad", "neu", "ang", "exc", "fru"], 6),
    ],
)
def test_a_label_set_names_its_classes_and_takes_their_utterances(
    release, label_set, names, per_round
):
    clips = read(release, label_set=label_set)

    options = parse_options(PREPARER, {"label_set": label_set})
    assert PREPARER.classes(release, options) == names
    assert len(clips) == per_round * (5 * 2 * 2 + 2)
    rated = {c.id: names[c.label] for c in clips}
    assert rated["Ses01F_impro01_F000"] == "ang"  # the first of EMOTIONS
    assert set(rated.values()) == set(names)


def test_happy_and_excited_are_one_class_of_four(release):
    by_id = {clip.id: clip.label for clip in read(release)}

    assert by_id["Ses02F_impro01_M000"] == by_id["Ses02F_impro01_F001"] == 1


def test_scripted_dialogues_can_be_left_out(release):
    names = [clip.id for clip in read(release, improvised_only="true")]

    assert len(names) == 5 * (5 * 2 + 1)
    assert all("impro" in name for name in names)


def test_every_modality_of_an_utterance_is_found_where_the_release_has_it(release):
    clip = {clip.id: clip for clip in read(release)}["Ses03M_impro05a_F001"]

    session = release / "Session3"
    assert clip.sources["audio"].path == (
        session / "sentences/wav/Ses03M_impro05a/Ses03M_impro05a_F001.wav"
    )
    assert clip.sources["video"].path == session / "dialog/avi/DivX/Ses03M_impro05a.avi"
    assert (clip.sources["video"].start_s, clip.sources["video"].end_s) == (2.25, 3.5)
    assert clip.sources["text"].text == "Line 2 of Ses03M_impro05a."
    assert clip.group == "3F"


def test_the_speaker_is_the_letter_of_the_utterance_not_of_the_dialogue(release):
    for clip in read(release):
        assert clip.group == clip.id[4] + clip.id.split("_")[-1][0]
    assert len({clip.group for clip in read(release)}) == 10


def test_the_folds_share_no_speaker_and_the_default_tests_on_session_five(release):
    clips = read(release)

    assert next(iter(clips[0].split)) == "session-5"
    protocols = [name for name in clips[0].split if name != "random-leaky"]
    assert len(protocols) == 5 + 10
    for protocol in protocols:
        speakers = defaultdict(set)
        for clip in clips:
            speakers[clip.split[protocol]].add(clip.group)
        assert speakers["test"].isdisjoint(speakers["train"] | speakers["val"])
        assert speakers["train"].isdisjoint(speakers["val"])
        size = 2 if protocol.startswith("session") else 1
        assert (len(speakers["test"]), len(speakers["val"])) == (size, size)
    by_session = {c.id[4]: c.split["session-5"] for c in clips}
    assert by_session == {"1": "val", "2": "train", "3": "train", "4": "train", "5": "test"}
    assert {c.group: c.split["speaker-2M"] for c in clips if c.id[4] == "2"} == {
        "2M": "test",
        "2F": "val",
    }


def test_the_leaky_protocol_is_drawn_evenly_and_always_the_same(release):
    first = {clip.id: clip.split["random-leaky"] for clip in read(release)}

    assert first == {clip.id: clip.split["random-leaky"] for clip in read(release)}
    counts = Counter(first.values())
    assert counts["test"] == counts["val"] == 11
    assert counts["train"] == 88


def test_what_is_no_table_of_labels_is_not_read(release):
    folder = release / "Session1/dialog/EmoEvaluation"
    whole = (folder / "Ses01F_impro01.txt").read_bytes()
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    (folder / "Categorical").mkdir()
    (folder / "Categorical/Ses01F_impro01_e2_cat.txt").write_bytes(whole.replace(b"ang", b"sad"))

    labels = {clip.id: clip.label for clip in read(release)}
    assert labels["Ses01F_impro01_F000"] == 0
    assert len(labels) == 5 * (5 * 2 * 2 + 2)


def test_a_byte_order_mark_and_cp1252_do_no_harm(release):
    dialogue(release, "Ses01F_impro02", EMOTIONS, begin="\ufeff")
    path = release / "Session1/dialog/transcriptions/Ses01F_impro02.txt"
    path.write_bytes(path.read_bytes().replace(b"Line 0", b"It\x92s line 0"))

    texts = {clip.id: clip.sources["text"].text for clip in read(release)}
    assert texts["Ses01F_impro02_F000"] == "It’s line 0 of Ses01F_impro02."


def test_an_utterance_without_transcript_is_left_out_with_the_reason(release):
    path = release / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))

    skipped = {clip.id: clip.skip for clip in read(release) if clip.skip}
    assert skipped == {"Ses01F_impro01_F000": "no-transcript"}


@pytest.mark.parametrize(
    "line",
    [
        "[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[2.5, 2.5, 2.5]",
        "[1.0 - 2.0]\tSes01F_imprO01_F000\tneu\t[2.5, 2.5, 2.5]",
        "[1.0]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]",
    ],
)
def test_a_line_that_rates_no_utterance_of_the_session_is_refused_with_its_number(release, line):
    path = release / "Session1/dialog/EmoEvaluation/Ses01F_impro03.txt"
    path.write_text(f"% header\n\n{line}\n")

    with pytest.raises(SourceError) as caught:
        read(release)

    assert f"{path}:3" in str(caught.value)
    assert caught.value.fix


def test_a_missing_session_is_not_the_release(release):
    assert locate(release.parent, PREPARER.editions) is not None
    shutil.rmtree(release / "Session4/dialog/EmoEvaluation")
    assert locate(release, PREPARER.editions) is None


def whole(root: Path) -> Path:
    """Write as many utterances of each emotion and session as the release has."""
    rest = Counter(FACTS.COUNTS)
    for session, counts in FACTS.SESSION_COUNTS.items():
        labels: list[str] = []
        for name, count in counts.items():
            kinds = FACTS.LABEL_SETS["4"][name]
            for _ in range(count):
                kind = next(kind for kind in kinds if rest[kind])
                rest[kind] -= 1
                labels.append(kind)
        if session == "5":
            labels += [e for e in rest.elements() if e not in ("ang", "hap", "exc", "sad", "neu")]
        dialogue(root, f"Ses0{session}F_impro01", labels)
    return root


def test_a_release_with_the_known_counts_gives_the_known_numbers(tmp_path):
    clips = read(whole(tmp_path))

    assert Counter(clip.label for clip in clips) == {0: 1103, 1: 1636, 2: 1084, 3: 1708}
    tested = Counter(clip.id[4] for clip in clips)
    assert tested == {"1": 1085, "2": 1023, "3": 1151, "4": 1031, "5": 1241}
    assert len(read(tmp_path, label_set="4-no-exc")) == 4490
    assert len(read(tmp_path, label_set="5")) == 6785
    assert len(read(tmp_path, label_set="6")) == 7380


def test_a_release_that_lacks_or_changes_labels_is_refused_with_the_differences(tmp_path):
    path = whole(tmp_path) / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    content = path.read_text()
    path.write_text(content.replace("\tsad\t", "\tneu\t", 1))
    with pytest.raises(SourceError) as changed:
        read(tmp_path)
    assert "session 2 sad: 196 instead of 197" in str(changed.value)
    assert "neu: 1709 instead of 1708" in str(changed.value)

    path.write_text(content[: len(content) // 2].rpartition("\n")[0])
    with pytest.raises(SourceError, match=r"utterances, IEMOCAP has 10,039"):
        read(tmp_path)


def test_a_release_of_real_media_becomes_a_store(tmp_path):
    try:
        truth = layouts.write_iemocap(tmp_path / "raw", 3)
    except RuntimeError as error:
        pytest.skip(str(error))

    made = prepare(
        PrepareRequest("iemocap", tmp_path / "raw", tmp_path / "store", options={"frames": "1"}),
        lambda _: None,
    )

    wanted = {name for name, label in truth.label.items() if label not in ("fru", "xxx")}
    with open_store(made.path) as store:
        assert set(store.index.ids()) == wanted
        assert store.columns["audio.logmel"].shape == (1, 64, 400)
        assert store.columns["video"].shape == (3, 256, 341)
        for name, seconds in zip(store.index.ids(), store.lengths("audio") / 16_000, strict=True):
            assert seconds == pytest.approx(truth.seconds[name], abs=0.01)
