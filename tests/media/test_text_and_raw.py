import hashlib
import pickle
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.media.container import read_bytes
from mmtool.media.decode import decode as decode_with_facts
from mmtool.media.decode import versions
from mmtool.media.failure import MediaError
from mmtool.media.kinds import sniff
from mmtool.media.raw import fingerprint, glance
from mmtool.media.spec import Source, TextSpec
from mmtool.media.text import text_of


def decode(source, spec):
    return decode_with_facts(source, spec).array


SPEC = TextSpec()
NOWHERE = Path("table.csv")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_token_ids_give_the_text_back(text):
    tokens = decode(Source(NOWHERE, text=text), SPEC)

    assert tokens.dtype == np.int32
    assert tokens.min() >= 1
    assert text_of(np.concatenate([tokens, np.zeros(5, np.int32)])) == text


@given(st.text(min_size=1, max_size=40), st.integers(4, 20))
def test_a_cut_keeps_whole_characters(text, max_tokens):
    tokens = decode(Source(NOWHERE, text=text), TextSpec(max_tokens=max_tokens))

    whole = text.encode("utf-8", "replace").decode()
    assert max_tokens - 3 <= len(tokens) <= max_tokens or len(tokens) == len(whole.encode())
    assert whole.startswith(text_of(tokens))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_files_are_read_in_the_encodings_that_releases_use(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Ein schöner Tag – heute".encode(encoding))

    assert text_of(decode(Source(tmp_path / "a.txt"), SPEC)) == "Ein schöner Tag – heute"


def test_what_is_no_text_is_refused(tmp_path):
    for name, content, reason in (
        ("binary", b"\x00\x01\x02abc", "not-media"),
        ("utf16", "hello".encode("utf-16"), "not-media"),
        ("empty", b"", "empty"),
        ("page", b"<html>404</html>", "not-media"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\n", "lfs-pointer"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name) as caught:
            decode(Source(tmp_path / name), SPEC)
        assert caught.value.reason == reason
    with pytest.raises(MediaError) as caught:
        decode(Source(NOWHERE, text=""), SPEC)
    assert caught.value.reason == "empty"


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"RIFF\x10\0\0\0WAVEfmt ", "wav"),
        (b"RIFF\x10\0\0\0AVI LIST", "avi"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"\xff\xfb\x90\x64" + bytes(9), "mp3"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"\x00\x00\x08\x03" + bytes(12), "idx"),
        (b"BM\x36\x10\0\0\0\0\0\0", "bmp"),
        (b"BMW is a maker of cars", "text"),
        (b"  <!DOCTYPE HTML><html>", "html"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "xml"),
        (b"version https://git-lfs.github.com/spec/v1", "lfs-pointer"),
        (b"plain words", "text"),
        (b"\x07\x00\x01\x02", None),
        (b"", None),
    ],
)
def test_first_bytes_tell_what_a_file_is(first, kind):
    assert sniff(first) == kind


@given(st.binary(max_size=300))
def test_no_bytes_confuse_the_look_at_them(first):
    assert sniff(first) is None or isinstance(sniff(first), str)


def test_the_name_of_a_clip_does_not_matter_to_what_is_seen(clips):
    for name, kind in (("clip.mp4", "mp4"), ("clip.flv", "flv"), ("clip.mkv", "mkv")):
        assert sniff((clips / name).read_bytes()[:512]) == kind
    for name, kind in (("tone.mp3", "mp3"), ("tone.flac", "flac"), ("tone.ogg", "ogg")):
        assert sniff((clips / name).read_bytes()[:512]) == kind


def test_a_fingerprint_is_the_hash_of_what_a_source_holds(tmp_path):
    def sha(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    (tmp_path / "a.bin").write_bytes(b"abc" * 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.bin", b"abc" * 1000)
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.save(tmp_path / "rows.npy", rows)

    assert fingerprint(Source(tmp_path / "a.bin")) == sha(b"abc" * 1000)
    assert fingerprint(Source(tmp_path / "a.zip", "a.bin")) == sha(b"abc" * 1000)
    assert fingerprint(Source(tmp_path / "rows.npy", row=1)) == sha(rows[1].tobytes())
    assert fingerprint(Source(NOWHERE, text="ä")) == sha("ä".encode())
    (tmp_path / "a.bin").write_bytes(b"changed")
    assert fingerprint(Source(tmp_path / "a.bin")) == sha(b"changed")


def test_files_and_archives_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 but not really")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.bin", b"abc" * 50)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[40] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(content)

    for source, reason in (
        (Source(tmp_path / "gone"), "missing"),
        (Source(tmp_path / "gone.zip", "a"), "missing"),
        (Source(tmp_path / "a.zip", "gone"), "missing"),
        (Source(tmp_path), "not-media"),
        (Source(tmp_path / "bad.zip", "a"), "not-media"),
        (Source(tmp_path / "flipped.zip", "a.bin"), "decode-error"),
    ):
        for read in (read_bytes, fingerprint, lambda s: decode(s, SPEC)):
            with pytest.raises(MediaError) as caught:
                read(source)
            assert caught.value.reason == reason
            assert str(source.path) in str(caught.value)


def test_more_archives_than_are_kept_open_are_all_read(tmp_path):
    for i in range(7):
        with zipfile.ZipFile(tmp_path / f"{i}.zip", "w") as archive:
            archive.writestr("a", str(i))
    order = [*range(7)] * 4

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: read_bytes(Source(tmp_path / f"{i}.zip", "a")), order))

    assert found == [str(i).encode() for i in order]


def test_a_failure_keeps_its_reason_between_processes():
    copy = pickle.loads(pickle.dumps(MediaError("no-audio", "a.mp4: has no audio stream")))

    assert copy.reason == "no-audio"
    assert str(copy) == "a.mp4: has no audio stream"


def test_the_decoders_name_their_versions():
    assert versions()["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("a.mp4", b"\x00\x00\x00\x20ftypisom" + bytes(60), "found"),
        ("a.csv", b"a,b\n1,2\n", "found"),
        ("a.dat", b"0.1 0.2 NaN", "found"),
        ("a.pkl", b"\x80\x02}.", "found"),
        ("a.mp4", b"", "empty"),
        ("a.wav", b"version https://git-lfs.github.com/spec/v1\noid", "lfs-pointer"),
        ("a.gz", b"<!DOCTYPE html><html>", "not-media"),
        ("a.csv", b"<html>404", "not-media"),
        ("a.flv", b"Not found", "not-media"),
        ("a.jpg", b"<?xml version='1.0'?><Error>", "not-media"),
    ],
)
def test_a_look_at_the_first_bytes_tells_what_is_of_no_use(tmp_path, name, content, seen):
    (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(name, content)

    assert glance(Source(tmp_path / name)) == seen
    assert glance(Source(tmp_path / "all.zip", name)) == seen


def test_a_look_never_fails(tmp_path):
    (tmp_path / "part.zip").write_bytes(b"PK\x03\x04" + bytes(500))

    assert glance(Source(tmp_path / "gone.mp4")) == "missing"
    assert glance(Source(tmp_path / "gone.zip", "a")) == "missing"
    assert glance(Source(tmp_path / "part.zip", "a")) == "not-media"
    assert glance(Source(NOWHERE, text="words")) == "found"


def test_a_zip_archive_cut_short_is_called_incomplete(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("a.txt", "words " * 500)
    (tmp_path / "a.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:1500])

    with pytest.raises(MediaError, match=r"a\.zip: the zip archive is incomplete") as caught:
        decode(Source(tmp_path / "a.zip", "a.txt"), SPEC)

    assert caught.value.reason == "not-media"


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    tokenizers = pytest.importorskip("tokenizers", reason="pip install tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[unk]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=["[unk]"], show_progress=False
    )
    model.train_from_iterator(["the cat sat on the mat", "the hat of the cat"] * 9, trainer)
    model.enable_padding(length=50)
    model.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_gives_its_ids_plus_one(tokenizer):
    import tokenizers

    model = tokenizers.Tokenizer.from_file(str(tokenizer))
    spec = TextSpec(tokenizer=tokenizer)

    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda t: decode(Source(NOWHERE, text=t), spec), ["the cat &amp;", "mat"] * 8)
        )

    assert found[0].dtype == np.int32
    assert found[0].min() >= 1
    assert model.decode((found[0] - 1).tolist()).startswith("the cat")
    assert len(found[1]) < 50, "padding of the file is left to the loader"
    assert all(np.array_equal(a, b) for a, b in zip(found, found[:2] * 8, strict=True))
    cut = decode(Source(NOWHERE, text="the cat"), TextSpec(max_tokens=1, tokenizer=tokenizer))
    np.testing.assert_array_equal(cut, found[0][:1])


def test_what_keeps_a_tokenizer_from_working_is_told_with_a_remedy(
    tokenizer, tmp_path, monkeypatch
):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RequestError, match="no tokenizer") as caught:
        decode(Source(NOWHERE, text="a"), TextSpec(tokenizer=tmp_path / "other.json"))
    assert "tokenizer.json" in caught.value.fix
    with pytest.raises(MediaError) as refused:
        decode(Source(NOWHERE, text=" "), TextSpec(tokenizer=tokenizer))
    assert refused.value.reason == "empty"
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "third.json").write_text("{}")
    with pytest.raises(EnvironmentLacks) as lacking:
        decode(Source(NOWHERE, text="a"), TextSpec(tokenizer=tmp_path / "third.json"))
    assert lacking.value.fix == "pip install tokenizers"
