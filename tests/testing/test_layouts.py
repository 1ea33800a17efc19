import hashlib
import json
import pickle
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmtool.testing import layouts
from mmtool.testing.layouts import crawled, cremad, drawing, sound

WRITERS = {
    "cremad": lambda root: layouts.write_cremad(root, 6),
    "ave": lambda root: layouts.write_ave(root, 12, seconds=2.0),
    "kinetics_sounds": lambda root: layouts.write_kinetics_sounds(root, 16, seconds=0.6),
    "vggsound": lambda root: layouts.write_vggsound(root, 8, seconds=0.6),
    "iemocap": lambda root: layouts.write_iemocap(root, 3),
    "ucf101": lambda root: layouts.write_ucf101(root, (1, 22), num_classes=5),
    "meld": lambda root: layouts.write_meld(root, 9, seconds=0.6),
    "mustard": lambda root: layouts.write_mustard(root, 10, seconds=0.6),
    "bad_inputs": layouts.write_bad_inputs,
}


@pytest.fixture(scope="module", autouse=True)
def _tools():
    try:
        layouts.require_tools()
    except RuntimeError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Give a function that writes a release once and returns what its writer returned."""
    found = {}

    def once(name):
        if name not in found:
            found[name] = WRITERS[name](tmp_path_factory.mktemp(name))
        return found[name]

    return once


def probe(path: Path) -> dict:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format"]
    done = subprocess.run([*command, f"file:{path}"], capture_output=True, text=True, check=False)
    streams = json.loads(done.stdout).get("streams", [])
    by_kind = {stream["codec_type"]: stream for stream in reversed(streams)}
    duration = json.loads(done.stdout).get("format", {}).get("duration")
    return {
        "path": path,
        "streams": streams,
        "seconds": float(duration) if duration else None,
        **by_kind,
    }


def num_frames_read(path: Path) -> int:
    command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0"]
    command += ["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", f"file:{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.strip().strip(","))


def peak_of(path: Path) -> int:
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0:a", "-f", "s16le", "-"]
    heard = subprocess.run(command, capture_output=True, check=True).stdout
    return int(np.abs(np.frombuffer(heard, "<i2").astype(int)).max())


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"cremad", "ave", "kinetics_sounds"}))
def test_the_same_arguments_give_identical_bytes(name, written, tmp_path):
    first = written(name)
    root = first["plain"].parent if isinstance(first, dict) else first.root

    WRITERS[name](tmp_path)

    assert contents(tmp_path) == contents(root)
    assert len(contents(root)) > 15


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("cremad", lambda root: layouts.write_cremad(root, 4, bad={"apple-double", "silent"})),
        ("ave", lambda root: layouts.write_ave(root, 12, seconds=2.0, bad=False)),
        (
            "kinetics_sounds",
            lambda root: layouts.write_kinetics_sounds(root, 16, seconds=0.6, bad=False),
        ),
    ],
)
def test_media_are_the_same_whatever_else_is_written(name, again, written, tmp_path):
    first = contents(written(name).root)

    again(tmp_path)

    found = {k: v for k, v in contents(tmp_path).items() if k.endswith((".flv", ".wav", ".mp4"))}
    assert len(found) > 8
    assert found.items() <= first.items()


def test_another_seed_gives_other_media(written, tmp_path):
    first = written("vggsound")

    other = layouts.write_vggsound(tmp_path, 8, seconds=0.6, seed=1, bad=False)

    assert not set(other.label) & set(first.label)
    assert other.defects == ()


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "bad_inputs"])
def test_every_id_has_a_class_a_rate_and_a_place_in_each_protocol(name, written):
    truth = written(name)
    protocols = {protocol for protocol, _ in truth.ids}

    assert set(truth.label.values()) <= set(truth.classes)
    assert truth.bad() - set(truth.label) <= {"", "Ses01F_impro01_FXX0"}
    for protocol in protocols:
        listed = {i for (p, _), ids in truth.ids.items() if p == protocol for i in ids}
        assert listed == set(truth.label)
    assert set(truth.fps) == set(truth.seconds) == set(truth.label)
    for found in truth.defects:
        if found.path is not None:
            assert found.path.exists() == (found.kind != "missing"), found


def test_unknown_traps_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="no-sound"):
        layouts.write_ave(tmp_path, bad={"no-sound"})


def test_missing_tools_are_told_with_the_way_to_get_them(monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match="apt-get install"):
        layouts.require_tools()


def test_cremad_has_the_names_and_tables_of_the_release(written, kit):
    truth = written("cremad")
    real = kit / "crema_d_listing"
    names = {path.stem for path in (truth.root / "AudioWAV").glob("[0-9]*.wav")}

    assert names == set(truth.label)
    assert {p.stem for p in (truth.root / "VideoFlash").glob("[0-9]*.flv")} == names
    listed = (real / "SentenceFilenames.csv").read_text()
    assert all(f'"{name}"' in listed for name in cremad.names(500))
    tables = ("SentenceFilenames.csv", "VideoDemographics.csv", "processedResults/summaryTable.csv")
    for table in tables:
        header = (real / table).read_text().partition("\n")[0]
        assert (truth.root / table).read_text().partition("\n")[0] == header
    speakers = json.loads((real / "speaker_disjoint_split_audeering.json").read_text())
    assert set(cremad.TEST_ACTORS) == set(speakers["test"])
    assert set(cremad.DEV_ACTORS) == set(speakers["dev"])


def test_cremad_media_have_the_true_form(written):
    truth = written("cremad")
    name = cremad.names(1)[0]
    wav = (truth.root / "AudioWAV" / f"{name}.wav").read_bytes()
    flv = probe(truth.root / "VideoFlash" / f"{name}.flv")

    assert wav[36:40] == b"data"
    assert int.from_bytes(wav[24:28], "little") == 16_000
    num_frames = (len(wav) - 44) / 2 / 16_000 * float(cremad.FPS)
    assert num_frames == pytest.approx(round(num_frames), abs=0.01)
    assert (flv["video"]["codec_name"], flv["audio"]["codec_name"]) == ("flv1", "mp3")
    assert (flv["video"]["width"], flv["video"]["height"]) == (480, 360)
    assert float(Fraction(flv["video"]["r_frame_rate"])) == pytest.approx(29.97, abs=0.01)
    assert flv["seconds"] == pytest.approx(truth.seconds[name], abs=0.12)
    assert num_frames_read(flv["path"]) == round(num_frames)


def test_cremad_known_bad_clips_are_bad_in_the_known_way(written):
    truth = written("cremad")
    flv = truth.root / "VideoFlash"
    wav = truth.root / "AudioWAV"

    assert probe(flv / "1064_IEO_DIS_MD.flv")["seconds"] == pytest.approx(61, abs=1.2)
    assert probe(flv / "1064_TIE_SAD_XX.flv")["seconds"] is None
    assert peak_of(wav / "1076_MTI_SAD_XX.wav") == 0
    assert "audio" not in probe(flv / "1076_MTI_NEU_XX.flv")
    assert "audio" not in probe(truth.defect("flv-no-audio").path)
    same = truth.defect("identical-content").id
    assert (wav / f"{same}.wav").read_bytes() == (wav / "1006_TIE_NEU_XX.wav").read_bytes()
    assert truth.defect("lfs-pointer").path.read_text().startswith("version https://git-lfs")


def test_many_cremad_clips_share_pictures_but_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cremad, "_NUM_DRAWN_ALONE", 2)
    names = [f"{actor}_DFA_ANG_XX" for actor in (1001, 1005, 1009, 1013, 1029)]

    layouts.write_cremad(tmp_path, names, bad=False)

    videos = [path.read_bytes() for path in sorted(tmp_path.glob("VideoFlash/*.flv"))]
    taken_over = [a for a in videos for b in videos if a is not b and a.startswith(b)]
    hashes = contents(tmp_path / "VideoFlash") | contents(tmp_path / "AudioWAV")
    assert len(taken_over) >= 2
    assert len(set(hashes.values())) == len(hashes) == 10


def test_ave_lists_follow_the_release(written):
    truth = written("ave")
    rows = (truth.root / "Annotations.txt").read_bytes().decode().split("\r\n")
    listed = [i for split in ("train", "val", "test") for i in truth.ids["official", split]]

    assert rows[0] == "Category&VideoID&Quality&StartTime&EndTime"
    assert rows[-1] == ""
    assert [row.split("&")[1] for row in rows[1:-1]] == listed
    assert sum(name.startswith("-") for name in set(listed)) >= len(set(listed)) // 4
    twice = truth.defect("duplicate-in-split").id
    assert truth.ids["official", "train"].count(twice) == 2
    across = truth.defect("duplicate-across-splits").id
    assert across in truth.ids["official", "train"]
    assert across in truth.ids["official", "test"]
    assert any(row.endswith(f"{truth.defect('zero-length').id}&good&0&0") for row in rows)


def test_crawled_defects_are_what_they_claim(written):
    truth = written("ave")
    path = {found.kind: found.path for found in truth.defects}

    assert "audio" not in probe(path["no-audio"])
    assert "video" not in probe(path["no-picture"])
    assert peak_of(path["silent"]) == 0
    assert probe(path["too-short"])["seconds"] < 0.25
    longer = probe(path["av-length"])
    assert float(longer["audio"]["duration"]) > float(longer["video"]["duration"]) + 1.9
    assert probe(path["rotated"])["video"]["side_data_list"][0]["rotation"] == -90
    uneven = probe(path["variable-rate"])["video"]
    assert Fraction(uneven["avg_frame_rate"]) < Fraction(uneven["r_frame_rate"])
    for kind in ("truncated", "stub", "not-media", "empty"):
        assert probe(path[kind])["streams"] == [], kind
    assert path["stub"].stat().st_size == 48
    assert path["apple-double"].with_name(f"._{path['apple-double'].name}").is_file()


def test_crawled_clips_have_the_stated_rate_and_length(written):
    truth = written("ave")
    good = [name for name in truth.label if name not in truth.bad()][:5]

    for name in good:
        found = probe(truth.root / "AVE" / f"{name}.mp4")
        assert Fraction(found["video"]["avg_frame_rate"]) == pytest.approx(truth.fps[name])
        assert found["seconds"] == pytest.approx(truth.seconds[name], abs=0.15)
        assert (found["audio"]["sample_rate"], found["audio"]["channels"]) == ("44100", 2)
    assert len({truth.fps[name] for name in good}) > 2


def test_kinetics_ids_come_in_both_dialects_and_files_in_four(written):
    truth = written("kinetics_sounds")

    assert all(len(name) == 25 for name in truth.ids["ogm-ge", "train"])
    assert all("_" not in name[12:] for name in truth.ids["ogm-ge", "test"])
    rows = (truth.root / "my_test.txt").read_bytes().decode().splitlines()
    assert rows == [
        f"{name},10,{truth.classes.index(truth.label[name])}"
        for name in truth.ids["ogm-ge", "test"]
    ]
    folders = {path.parent.name for path in truth.root.glob("*/*.mp4")}
    assert any(" " in folder for folder in folders)
    assert any("_" in folder for folder in folders)
    stems = [path.stem for path in truth.root.rglob("[!.]*.mp4")]
    assert sum(len(stem) == 11 for stem in stems) >= 4
    assert truth.defect("two-starts").path.name.startswith(truth.defect("two-starts").id[:11])


def test_vggsound_has_labels_with_commas_and_shared_videos(written):
    truth = written("vggsound")
    text = (truth.root / "vggsound.csv").read_text()
    shared = truth.defect("cross-split-video").id

    assert ',"playing violin, fiddle",' in text
    assert text.count("train") > len(truth.ids["official", "train"])
    assert {i[:11] for i in truth.ids["official", "test"]} >= {shared[:11]}
    assert shared in truth.ids["official", "train"]


def test_iemocap_turns_lie_inside_their_dialogue(written):
    truth = written("iemocap")
    turns = sorted(name for name in truth.label if truth.group[name] == "Ses05M_script01_1b")
    session = truth.root / "Session5"
    ratings = session / "dialog/EmoEvaluation/Ses05M_script01_1b.txt"
    lines = [line for line in ratings.read_text().splitlines() if line.startswith("[")]
    movie = probe(session / "dialog/avi/DivX/Ses05M_script01_1b.avi")

    assert sorted(line.split("\t")[1] for line in lines) == turns
    assert {line.split("\t")[1]: line.split("\t")[2] for line in lines} == {
        name: truth.label[name] for name in turns
    }
    ends = [float(line[1:].split("]")[0].split(" - ")[1]) for line in lines]
    assert max(ends) < movie["seconds"] < max(ends) + 1.5
    assert (movie["video"]["codec_name"], movie["video"]["codec_tag_string"]) == ("mpeg4", "DIVX")
    assert int(movie["video"]["nb_frames"]) == num_frames_read(movie["path"])
    for name in turns:
        wav = session / f"sentences/wav/Ses05M_script01_1b/{name}.wav"
        assert (wav.stat().st_size - 44) / 32_000 == pytest.approx(truth.seconds[name])


def test_ucf101_has_both_editions(written):
    truth = written("ucf101")
    pushups = "v_HandStandPushups_g01_c01"
    movie = probe(truth.root / "UCF-101" / "HandstandPushups" / f"{pushups}.avi")

    def count(part: str) -> int:
        return len(list((truth.root / part / pushups).glob("frame0*.jpg")))

    assert (count("jpegs_256"), count("tvl1_flow/u"), count("tvl1_flow/v")) == (6, 5, 5)
    assert movie["video"]["codec_tag_string"] == "XVID"
    assert Fraction(movie["video"]["r_frame_rate"]) == truth.fps[pushups] == 25
    lists = truth.root / "ucfTrainTestlist"
    assert lists.joinpath("testlist01.txt").read_bytes().startswith(b"ApplyEyeMakeup/v_Apply")
    assert lists.joinpath("trainlist01.txt").read_bytes().split(b"\r\n")[0].endswith(b".avi 1")
    assert list(truth.classes) != sorted(truth.classes)
    mute = [i for i, category in truth.label.items() if truth.classes.index(category) % 2]
    avi = truth.root / "UCF-101" / truth.label[mute[0]] / f"{mute[0]}.avi"
    assert "audio" not in probe(avi)


def test_meld_numbers_begin_anew_in_each_split(written):
    truth = written("meld")
    table = (truth.root / "train_sent_emo.csv").read_bytes()

    assert {"train/dia0_utt0", "dev/dia0_utt0", "test/dia0_utt0"} <= set(truth.label)
    assert b"\x92" in table
    with pytest.raises(UnicodeDecodeError):
        table.decode("utf-8")
    long = probe(truth.defect("outlier-duration").path)
    assert long["seconds"] == pytest.approx(61, abs=0.2)
    good = probe(truth.root / "test/output_repeated_splits_test/dia0_utt0.mp4")
    assert good["audio"]["channels"] == 6


def test_mustard_folds_are_row_numbers_of_the_table(written):
    truth = written("mustard")
    names = list(json.loads((truth.root / "data/sarcasm_data.json").read_text()))
    folds = pickle.loads((truth.root / "data/split_indices.p").read_bytes())

    assert len(folds) == 5
    for number, (train, test) in enumerate(folds, start=1):
        assert tuple(names[i] for i in test) == truth.ids[f"fold-{number}", "test"]
        assert tuple(names[i] for i in train) == truth.ids[f"fold-{number}", "train"]
    assert {truth.group[i] for i in truth.ids["speaker-independent", "test"]} == {"FRIENDS"}
    assert (truth.root / "context_final" / f"{names[0]}_c.mp4").is_file()


def test_bad_inputs_are_what_their_names_say(written):
    found = written("bad_inputs")

    unreadable = ("lfs-pointer", "html", "empty", "moov-missing", "apple-double", "wav-empty")
    for kind in unreadable:
        assert probe(found[kind])["streams"] == [], kind
    assert [s["codec_name"] for s in probe(found["cover-art"])["streams"]][:2] == ["png", "h264"]
    assert probe(found["outlier-61s"])["seconds"] == pytest.approx(61)
    assert probe(found["one-frame"])["video"]["nb_frames"] == "1"
    assert probe(found["rotation-90"])["video"]["side_data_list"][0]["rotation"] == -90
    assert probe(found["no-duration"])["seconds"] is None
    assert "audio" not in probe(found["no-audio"])
    assert "video" not in probe(found["no-picture"])
    assert peak_of(found["silent"]) == 0
    longer = probe(found["av-length"])
    assert float(longer["audio"]["duration"]) - float(longer["video"]["duration"]) == pytest.approx(
        3
    )
    assert found["wav-endless-header"].read_bytes()[40:44] == b"\xff" * 4
    sizes = {kind: found[kind].stat().st_size for kind in ("truncated", "plain")}
    assert 0.5 < sizes["truncated"] / sizes["plain"] < 0.7
    twins = [found[f"case-twin-{case}"].name for case in ("lower", "upper")]
    assert twins[0] != twins[1]
    assert twins[0].lower() == twins[1].lower()


@pytest.mark.parametrize(
    ("kind", "codec", "rate_hz", "channels"),
    [
        ("wav-8-bit", "pcm_u8", "16000", 1),
        ("wav-24-bit", "pcm_s24le", "16000", 1),
        ("wav-32-float", "pcm_f32le", "16000", 1),
        ("wav-48-khz", "pcm_s16le", "48000", 1),
        ("wav-5.1", "pcm_s16le", "48000", 6),
    ],
)
def test_wav_files_have_the_stated_format(kind, codec, rate_hz, channels, written):
    found = probe(written("bad_inputs")[kind])["audio"]

    assert (found["codec_name"], found["sample_rate"], found["channels"]) == (
        codec,
        rate_hz,
        channels,
    )


def nearest_mean_accuracy(examples: np.ndarray) -> float:
    """Train on the first half of the examples (class x example x feature), test on the rest."""
    half = examples.shape[1] // 2
    means = examples[:, :half].mean(axis=1)
    tests = examples[:, half:]
    distance = ((tests[:, :, None] - means[None, None]) ** 2).sum(axis=-1)
    return float((distance.argmin(axis=-1) == np.arange(len(examples))[:, None]).mean())


@pytest.mark.parametrize(("snr_db", "low", "high"), [(10.0, 0.9, 1.0), (-60.0, 0.0, 0.45)])
def test_the_sound_cue_is_as_clear_as_asked(snr_db, low, high):
    def example(index, number):
        generator = np.random.default_rng([index, number])
        heard = sound.class_sound(index, 8000, 16_000, generator, snr_db=snr_db).astype(float)
        spectrum = np.abs(np.fft.rfft(heard.reshape(-1, 500), axis=1)).mean(axis=0)
        return np.log(spectrum[:80] + 1)

    examples = np.array([[example(i, n) for n in range(12)] for i in range(6)])

    assert low <= nearest_mean_accuracy(examples) <= high


@pytest.mark.parametrize(("contrast", "low", "high"), [(0.8, 0.9, 1.0), (0.0, 0.0, 0.45)])
def test_the_picture_cue_is_as_clear_as_asked(contrast, low, high):
    def example(index, number):
        frames = drawing.class_frames(
            index, 6, 4, np.random.default_rng([index, number]), width=48, height=32,
            contrast=contrast,
        )  # fmt: skip
        return frames.reshape(-1, 3).mean(axis=0) - frames.mean()

    examples = np.array([[example(i, n) for n in range(12)] for i in range(6)])

    assert low <= nearest_mean_accuracy(examples) <= high


@pytest.mark.parametrize(("strength", "low", "high"), [(1.0, 0.9, 1.0), (0.0, 0.0, 0.45)])
def test_the_face_tells_the_emotion_as_clearly_as_asked(strength, low, high):
    def example(emotion, number):
        generator = np.random.default_rng([number, *emotion.encode()])
        drawn = drawing.faces(emotion, 3, generator, width=60, height=45, strength=strength)
        return drawn[0].astype(float).ravel()

    examples = np.array([[example(e, n) for n in range(8)] for e in cremad.CLASSES])

    assert low <= nearest_mean_accuracy(examples) <= high


def test_event_bounds_limit_the_sound_cue():
    generator = np.random.default_rng(0)
    heard = sound.class_sound(2, 8000, 8000, generator, snr_db=30, during=(0.25, 0.5)).astype(float)

    assert np.abs(heard[2000:4000]).mean() > 20 * np.abs(heard[4100:]).mean()


def test_youtube_ids_are_like_real_ones():
    found = crawled.youtube_ids(200, np.random.default_rng(0))

    assert len(set(found)) == 200
    assert {len(name) for name in found} == {11}
    assert sum(name.startswith("-") for name in found) == 50
