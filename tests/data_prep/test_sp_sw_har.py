import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmtool.errors import SourceError
from mmtool.media.decode import decode
from mmtool.prepare.api import Clip
from mmtool.prepare.loader import load_preparer, parse_options
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.store.reader import open_store

PREPARER = load_preparer("sp_sw_har")
HEADER = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"
BEGIN_MS = 1_657_533_977_000
SUBJECTS = ("s01", "s02", "s03", "s04", "s18")


def read(root: Path, **options: str) -> list[Clip]:
    return list(PREPARER.clips(root, parse_options(PREPARER, options)))


def read_phone(root: Path) -> None:
    for clip in read(root):
        source = clip.sources["phone_gyro"]
        assert source.read is not None
        source.read(source)


def table(times_ms: np.ndarray, labels: list[str]) -> str:
    """Give rows whose acceleration along x is the second since BEGIN_MS."""
    lines = [
        f"{(t - BEGIN_MS) / 1000},1,2,{(BEGIN_MS - t) / 1000},4,5,{t},{label}"
        for t, label in zip(times_ms.tolist(), labels, strict=True)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def write(root: Path) -> Path:
    """Write one execution of four seconds per subject; the watch starts half a second later."""
    data = root / "DATA"
    phone = BEGIN_MS + np.arange(0, 4_000, 10)
    watch = BEGIN_MS + 500 + np.arange(0, 4_000, 10)
    labels = ["SEATED" if t < BEGIN_MS + 2_000 else "WALKING" for t in phone]
    for subject in SUBJECTS:
        folder = data / subject
        folder.mkdir(parents=True)
        (folder / f"{subject}_01_sp.csv").write_text(table(phone, labels))
        (folder / f"{subject}_01_sw.csv").write_text(table(watch, ["SEATED"] * len(watch)))
    lines = ["execution_id,orientation,first_turn,second_turn"]
    lines += [f"{subject}_01,back,l,r" for subject in SUBJECTS]
    (data / "executions_info.csv").write_text("\n".join(lines) + "\n")
    return root


def test_windows_lie_in_what_both_devices_recorded_and_agree_in_time(tmp_path):
    root = write(tmp_path)
    clips = [clip for clip in read(root) if clip.group == "s01"]

    # From 0.5 s to 3.99 s every half second; the one around the change at 2 s is half and half.
    starts_s = [clip.sources["watch_acc"].start_s - BEGIN_MS / 1000 for clip in clips]
    np.testing.assert_allclose(starts_s, [0.5, 1.0, 2.0, 2.5, 3.0], atol=1e-3)
    names = PREPARER.classes(root, parse_options(PREPARER, {}))
    assert [names[clip.label] for clip in clips] == ["SEATED"] * 2 + ["WALKING"] * 3
    for name, column in PREPARER.columns(root, parse_options(PREPARER, {})).items():
        found = decode(clips[1].sources[name], column.spec).array
        sign = 1 if name.endswith("acc") else -1
        assert found.shape == (50, 3)
        np.testing.assert_allclose(sign * found[:, 0], 1 + np.arange(50) / 50, atol=1e-4)


def test_rows_of_one_millisecond_are_averaged(tmp_path):
    root = write(tmp_path)
    path = root / "DATA" / "s01" / "s01_01_sp.csv"
    lines = path.read_text().splitlines()
    burst = [line.replace(line.split(",")[0], "9", 1) for line in lines[101:102]]
    path.write_text("\n".join([*lines[:102], *burst, *lines[102:]]) + "\n")

    clip = next(c for c in read(root) if c.sources["phone_acc"].start_s > BEGIN_MS / 1000 + 0.9)
    spec = PREPARER.columns(root, parse_options(PREPARER, {}))["phone_acc"].spec

    decoded = decode(clip.sources["phone_acc"], spec)
    assert float(decoded.array[0, 0]) == pytest.approx((1 + 9) / 2, abs=1e-3)
    assert decoded.facts.flags == ()


def test_a_device_that_is_missing_is_counted_and_stops_the_work(tmp_path):
    root = write(tmp_path / "raw")
    (root / "DATA" / "s02" / "s02_01_sw.csv").unlink()

    with pytest.raises(SourceError, match=r"1 clip of 21 have no file") as caught:
        prepare(PrepareRequest("sp_sw_har", root, tmp_path / "out"), lambda _: None)
    assert "s02_01_sw.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("z_gyro", "w_gyro"), r"has no column z_gyro"),
        (lambda text: text.replace("WALKING", "WALKNG", 1), r"there is no class 'WALKNG'"),
        (lambda text: text.replace(str(BEGIN_MS + 90), str(BEGIN_MS), 1), r"time goes backwards"),
        (lambda text: text.splitlines()[0] + "\n", r"has no rows"),
    ],
)
def test_a_table_that_is_none_of_the_release_is_refused(tmp_path, damage, said):
    root = write(tmp_path)
    path = root / "DATA" / "s01" / "s01_01_sp.csv"
    path.write_text(damage(path.read_text()))

    with pytest.raises(SourceError, match=said) as caught:
        read_phone(root)
    assert caught.value.fix


def test_no_subject_is_in_two_splits_of_any_protocol(tmp_path):
    clips = read(write(tmp_path))

    assert list(clips[0].split) == ["holdout", *(f"subject-{name}" for name in SUBJECTS)]
    for protocol in clips[0].split:
        of_subject = {(clip.group, clip.split[protocol]) for clip in clips}
        assert len(of_subject) == len(SUBJECTS)
        assert {split for _, split in of_subject} == {"train", "val", "test"}
    assert {c.group for c in clips if c.split["holdout"] == "test"} == {"s18"}


def test_a_part_of_the_kit_becomes_a_store(kit, tmp_path):
    small = tmp_path / "raw"
    small.mkdir()
    with zipfile.ZipFile(kit / "sp_sw_har" / "sp-sw-har-dataset.zip") as archive:
        members = [n for n in archive.namelist() if "/DATA/s0" in n or "/DATA/s18" in n]
        info = archive.read("sp-sw-har-dataset/DATA/executions_info.csv").decode()
        with zipfile.ZipFile(small / "sp-sw-har-dataset.zip", "w") as part:
            for name in members:
                part.writestr(name, archive.read(name))
            kept = [x for x in info.splitlines() if x[:2] in ("s0", "ex") or x[:3] == "s18"]
            part.writestr("sp-sw-har-dataset/DATA/executions_info.csv", "\n".join(kept) + "\n")

    made = prepare(PrepareRequest("sp_sw_har", small, tmp_path / "out", limit=300), lambda _: None)

    with open_store(made.path) as store:
        assert store.index.num_rows == 300
        for device in ("phone", "watch"):
            values, _ = store.gather(f"{device}_acc", np.arange(300))
            # At rest or walking, the acceleration is on average that of gravity.
            assert 9 < np.median(np.linalg.norm(values, axis=2)) < 11


def test_the_whole_kit_has_about_the_published_number_of_windows(kit):
    clips = read(kit / "sp_sw_har")

    counts = Counter(clip.split["holdout"] for clip in clips)
    assert abs(counts["test"] - 793) < 8
    assert abs(counts["train"] + counts["val"] - 2_235) < 8
    assert not any(clip.skip for clip in clips)
