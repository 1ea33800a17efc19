import hashlib
import shutil
from collections import defaultdict

import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.media.raw import fingerprint
from mmtool.paths import bundled
from mmtool.prepare.loader import load_preparer, parse_options

SAMPLE = bundled("data_prep") / "samples" / "avdigits"


@pytest.fixture(scope="module")
def preparer():
    return load_preparer("avdigits")


@pytest.fixture(scope="module")
def options(preparer):
    return parse_options(preparer, {})


@pytest.fixture(scope="module")
def clips(preparer, options):
    return list(preparer.clips(SAMPLE, options))


def test_the_sample_has_all_official_test_recordings_and_three_thousand_test_pairs(clips):
    test = [c for c in clips if c.split["official"] == "test"]
    recordings = {c.sources["audio"].member for c in test}

    assert len(test) >= 3000
    assert len(recordings) == 300
    assert {int(m.rsplit("_", 1)[1].removesuffix(".wav")) for m in recordings} == set(range(5))


def test_every_picture_is_used_once(clips):
    pictures = [(c.sources["image"].path, c.sources["image"].row) for c in clips]

    assert len(set(pictures)) == len(pictures) == len(clips)


@pytest.mark.parametrize("protocol", ["official", "speaker"])
def test_no_recording_and_no_picture_is_in_two_splits(clips, protocol):
    seen = defaultdict(set)
    for clip in clips:
        for source in clip.sources.values():
            seen[fingerprint(source)].add(clip.split[protocol])

    assert {s for splits in seen.values() for s in splits} == {"train", "val", "test"}
    assert all(len(splits) == 1 for splits in seen.values())


def test_the_speaker_protocol_keeps_speakers_apart(clips):
    splits = defaultdict(set)
    for clip in clips:
        splits[clip.group].add(clip.split["speaker"])

    assert len(splits) == 6
    assert all(len(found) == 1 for found in splits.values())


def test_voice_and_picture_show_the_same_digit(clips):
    for clip in clips:
        assert clip.sources["audio"].member.rsplit("/", 1)[1].startswith(f"{clip.label}_")


def test_noise_depends_on_the_clip_alone(preparer, options, clips):
    columns = preparer.columns(SAMPLE, options)

    def finished(clip):
        arrays = {n: decode(clip.sources[n], c.spec) for n, c in columns.items()}
        return preparer.finish(clip, arrays, options)

    first, again, other = finished(clips[0]), finished(clips[0]), finished(clips[1])

    for name in columns:
        digests = {hashlib.sha256(a[name].tobytes()).hexdigest() for a in (first, again)}
        assert len(digests) == 1
        assert first[name].tobytes() != other[name].tobytes()


def test_a_folder_without_the_sets_is_refused_with_what_was_looked_for(preparer, options, tmp_path):
    with pytest.raises(SourceError) as caught:
        list(preparer.clips(tmp_path, options))
    assert "{digit}_{speaker}_{take}.wav" in caught.value.why

    shutil.copytree(SAMPLE / "fsdd", tmp_path / "fsdd")
    with pytest.raises(SourceError) as caught:
        list(preparer.clips(tmp_path, options))
    assert "t10k-images" in caught.value.what


def test_more_pairs_than_pictures_is_refused(preparer):
    greedy = parse_options(preparer, {"pairs_per_train_clip": "1000"})

    with pytest.raises(SourceError, match="too few pictures"):
        list(preparer.clips(SAMPLE, greedy))


def test_the_whole_release_is_read_by_the_same_code(preparer, options, kit):
    clips = list(preparer.clips(kit, options))

    recordings = {c.sources["audio"].member for c in clips}
    assert len(recordings) == 3000
    assert sum(c.split["official"] == "test" for c in clips) == 3000
    assert len(clips) == 300 * 10 + 2700 * 6


def test_the_notice_names_licences_and_authors():
    text = (SAMPLE / "NOTICE.txt").read_text(encoding="utf-8")

    for part in ("CC BY-SA 4.0", "CC BY-SA 3.0", "Zohar Jackson", "Yann LeCun", "840"):
        assert part in text
    size = sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file())
    assert size <= 6_000_000
