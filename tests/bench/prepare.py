"""Measure `mmtool prepare` beside the classic pipeline on generated clips in CREMA-D's layout.

    python tests/bench/prepare.py [--clips 120] [--repeats 3] [--out RESULTS]

The classic pipeline is the usual script of this field: OpenCV decodes every frame of a clip and
writes one per second as JPEG; sound is left for training time. Ours decodes three frames and, in
the second comparison, also stores the wave and the 257 x 188 log-spectrogram that the classic one
computes anew in every epoch. Both run interleaved in this process, so what else the machine does
meets both; a ratio is the median of the repeats. Peak memory is that of a fresh process, for as
many clips and for four times as many.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import cv2
from record import RESULTS, write_results

from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import PrepareRequest
from mmtool.testing.layouts.cremad import names, write_cremad

JPEG_QUALITY = 95
BITRATE = "930k"
"""Of CREMA-D's flv files: 984 to 1,073 kbit/s with the sound."""
GOALS = {"frames, one core": 1.5, "frames and spectrogram, two cores": 2.3}
PREPARER = """
    '''CREMA-D with the columns that a comparison needs.'''
    from mmtool.prepare import api
    from mmtool.prepare.loader import load_preparer

    _base = load_preparer("cremad").module
    NAME, TITLE, LICENCE, SOURCE, CITATION = "bench", "Bench", "none", "generated", "none"
    EDITIONS, Options = _base.EDITIONS, _base.Options
    classes, MAX_MISSING = _base.classes, 1.0

    def columns(root, options):
        wanted = {wanted!r}
        return {{n: c for n, c in _base.columns(root, options).items() if n in wanted}}

    def clips(root, options):
        from dataclasses import replace
        modalities = {{n.partition(".")[0] for n in {wanted!r}}}
        for clip in _base.clips(root, options):
            kept = {{m: s for m, s in clip.sources.items() if m in modalities}}
            yield replace(clip, sources=kept, skip="")
"""
FRAMES = ("video",)
EVERYTHING = ("audio", "audio.ogm_ge", "video")


def with_real_bitrate(release: Path) -> None:
    """Encode the clips anew with the noise of a camera: drawn faces cost a fifth of real ones."""
    for clip in sorted((release / "VideoFlash").glob("*.flv")):
        noisy = clip.with_suffix(".noisy.flv")
        command = ["ffmpeg", "-loglevel", "error", "-y", "-i", str(clip)]
        command += ["-vf", "noise=alls=14:allf=t", "-c:v", "flv1", "-b:v", BITRATE]
        subprocess.run([*command, "-c:a", "copy", str(noisy)], check=True)
        noisy.replace(clip)


def classic(release: Path, work: Path) -> float:
    """Run the classic pipeline over all clips; give its seconds."""
    started = time.perf_counter()
    for clip in sorted((release / "VideoFlash").glob("*.flv")):
        target = work / clip.stem
        target.mkdir(parents=True)
        capture = cv2.VideoCapture(str(clip))
        step = int(capture.get(cv2.CAP_PROP_FPS))
        number = 0
        while True:
            is_read, frame = capture.read()
            if not is_read:
                break
            if number % step == 0:
                name = str(target / f"frame_{number:05d}.jpg")
                cv2.imwrite(name, frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            number += 1
        capture.release()
    return time.perf_counter() - started


def ours(release: Path, work: Path, columns: tuple[str, ...], workers: int) -> float:
    """Prepare a store with these columns; give its seconds."""
    preparer = work / "bench.py"
    work.mkdir()
    preparer.write_text(textwrap.dedent(PREPARER).format(wanted=columns))
    started = time.perf_counter()
    # Some of the generated clips are equal, on both sides of a split.
    request = PrepareRequest(
        str(preparer), release, work / "store", workers=workers, allow_leak=True
    )
    prepare(request, lambda _: None)
    return time.perf_counter() - started


def interleaved(
    release: Path, scratch: Path, columns: tuple[str, ...], cores: set[int], repeats: int
) -> dict[str, object]:
    """Run both on the given cores, turn by turn; give clips per second and their ratio."""
    count = len(list((release / "VideoFlash").glob("*.flv")))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    rates: dict[str, list[float]] = {"classic": [], "mmtool": []}
    cpu_s: dict[str, list[float]] = {"classic": [], "mmtool": []}
    try:
        for turn in range(repeats + 1):  # the first turn warms caches and imports
            folder = scratch / f"turn{turn}"
            for name, run in (
                ("classic", lambda: classic(release, folder / "classic")),  # noqa: B023
                ("mmtool", lambda: ours(release, folder / "mmtool", columns, len(cores))),  # noqa: B023
            ):
                before = time.process_time()
                seconds = run()
                if turn:
                    rates[name].append(count / seconds)
                    cpu_s[name].append(time.process_time() - before)
            shutil.rmtree(folder)
    finally:
        os.sched_setaffinity(0, allowed)
    ratios = [b / a for a, b in zip(rates["classic"], rates["mmtool"], strict=True)]
    return {
        "clips": count,
        "clips_per_s": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "ratio": round(statistics.median(ratios), 2),
        "cpu_ms_per_clip": {
            name: round(1000 * statistics.median(found) / count, 1) for name, found in cpu_s.items()
        },
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def peak_memory(release: Path, scratch: Path) -> int:
    """Give the peak resident bytes of a process that prepares a release."""
    folder = scratch / "memory"
    folder.mkdir()
    command = [sys.executable, __file__, "--only-prepare", str(release), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(folder)
    return int(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only-prepare", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_prepare:
        release, folder = given.only_prepare
        ours(release, folder / "one", EVERYTHING, 2)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return 0
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="mmtool-bench-") as folder:
        scratch = Path(folder)
        small, large = scratch / "small", scratch / "large"
        write_cremad(small, names(given.clips), bad=False)
        write_cremad(large, names(4 * given.clips), bad=False)
        with_real_bitrate(small)
        measured = {
            "frames, one core": interleaved(
                small, scratch / "one", FRAMES, {cores[0]}, given.repeats
            ),
            "frames and spectrogram, two cores": interleaved(
                small, scratch / "two", EVERYTHING, set(cores[:2]), given.repeats
            ),
        }
        memory = {
            str(len(list((release / "VideoFlash").glob("*")))): peak_memory(release, scratch)
            for release in (small, large)
        }
    for name, found in measured.items():
        print(f"{name}: {found['ratio']}x (goal {GOALS[name]}x)")
        print(f"  clips/s {found['clips_per_s']}, CPU ms per clip {found['cpu_ms_per_clip']}")
    print("peak memory:", {n: f"{size / 2**20:.0f} MiB" for n, size in memory.items()})
    results = {"goals": GOALS, "measured": measured, "peak_bytes_by_clips": memory}
    print(write_results("prepare", results, given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
