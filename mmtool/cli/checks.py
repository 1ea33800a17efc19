"""What `mmtool doctor` looks at; every check tries the real thing on data made on the spot."""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import wave
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import pi, sin
from pathlib import Path
from typing import Any, Literal

from mmtool.text import human_bytes, plural

MIN_FREE_BYTES = 2 << 30
MIN_SHARED_MEMORY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one look."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Give the fields for `--json`."""
        return asdict(self)


def all_checks(data_root: Path, runs_root: Path) -> list[Check]:
    """Look at everything; a check that itself breaks counts as a failure with its reason."""
    looks: list[tuple[str, Callable[[], Check]]] = [
        ("python", check_python),
        ("torch", check_torch),
        ("gpu", check_gpu),
        ("audio", check_audio),
        ("video", check_video),
        ("image", check_image),
        ("data root", lambda: check_folder("data root", data_root, "--data-root DIR")),
        ("runs root", lambda: check_folder("runs root", runs_root, "--runs-dir DIR")),
        ("threads", check_threads),
        ("shared memory", check_shared_memory),
    ]
    return [_tried(name, look) for name, look in looks]


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything at all
        reason = " ".join(str(error).split()) or type(error).__name__
        return Check(name, "fail", f"{type(error).__name__}: {reason[:300]}", _fix_of(name))


def _fix_of(name: str) -> str:
    fixes = {
        "torch": 'pip install "torch>=2.11,<2.15" torchvision "torchaudio>=2.11,<2.12"',
        "audio": "pip install torchcodec, and the FFmpeg libraries: apt-get install ffmpeg",
        "video": "pip install torchcodec, and the FFmpeg libraries: apt-get install ffmpeg",
        "image": "pip install opencv-python-headless",
    }
    return fixes.get(name, "mmtool doctor -v")


def check_python() -> Check:
    """Look at the interpreter's version."""
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036 - a checkout can be run by any interpreter
        return Check("python", "fail", version, "install Python 3.11 or newer")
    return Check("python", "ok", f"{version} at {sys.executable}")


def check_torch() -> Check:
    """Import torch, torchvision and torchaudio together: only matching builds can."""
    names = ("torch", "torchvision", "torchaudio")
    modules = [importlib.import_module(name) for name in names]
    versions = [
        f"{name} {getattr(module, '__version__', '?')}"
        for name, module in zip(names, modules, strict=True)
    ]
    return Check("torch", "ok", ", ".join(versions))


def check_gpu() -> Check:
    """Look for GPUs and for what they need to work together."""
    import torch

    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        why = "a driver is there, but this torch cannot use it" if driver else "training uses CPU"
        fix = "install a CUDA build of torch: https://pytorch.org" if driver else ""
        return Check("gpu", "warn" if driver else "ok", f"none; {why}", fix)
    count = torch.cuda.device_count()
    name = torch.cuda.get_device_name(0)
    total = human_bytes(torch.cuda.get_device_properties(0).total_memory)
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    text = f"{plural(count, 'GPU')}: {name}, {total}, CUDA {torch.version.cuda}"
    if not nccl:
        fix = "install a build of torch with NCCL"
        return Check("gpu", "warn" if count > 1 else "ok", f"{text}, without NCCL", fix)
    return Check("gpu", "ok", f"{text}, NCCL")


def check_audio() -> Check:
    """Decode a tone that was just written as a wav file."""
    decoders = importlib.import_module("torchcodec.decoders")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tone.wav")
        write_tone(path)
        samples = decoders.AudioDecoder(str(path)).get_all_samples()
    peak = float(samples.data.abs().max())
    length = int(samples.data.shape[-1])
    if length != 1600 or not 0.4 < peak < 0.6:
        text = f"a tone of 1600 samples came back as {length} with peak {peak:.2f}"
        return Check("audio", "fail", text, _fix_of("audio"))
    return Check("audio", "ok", f"torchcodec {_version('torchcodec')} decoded a wav file")


def write_tone(path: Path) -> None:
    """Write a tenth of a second of a 440 Hz tone at half of full scale."""
    values = array("h", (round(16384 * sin(2 * pi * 440 * i / 16000)) for i in range(1600)))
    if sys.byteorder == "big":
        values.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(values.tobytes())


def check_video() -> Check:
    """Decode a short film that the ffmpeg program makes."""
    program = shutil.which("ffmpeg")
    if program is None:
        text = "not tried: the ffmpeg program that makes a test film is absent"
        return Check("video", "warn", text, "apt-get install ffmpeg")
    decoders = importlib.import_module("torchcodec.decoders")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        source = "testsrc=duration=1:size=64x48:rate=8"
        made = subprocess.run(
            [program, "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if made.returncode != 0:
            text = f"ffmpeg could not make a test film: {made.stderr.strip()[:200]}"
            return Check("video", "warn", text, "apt-get install --reinstall ffmpeg")
        shape = tuple(decoders.VideoDecoder(str(path)).get_frame_at(0).data.shape)
    if shape != (3, 48, 64):
        return Check("video", "fail", f"a 64x48 film came back as {shape}", _fix_of("video"))
    return Check("video", "ok", f"torchcodec {_version('torchcodec')} decoded an mp4 file")


def check_image() -> Check:
    """Encode and decode a small picture."""
    import cv2
    import numpy as np

    # Any: opencv declares no types.
    opencv: Any = cv2
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    encoded = opencv.imencode(".png", picture)[1]
    back = opencv.imdecode(encoded, opencv.IMREAD_COLOR)
    if back is None or not np.array_equal(back, picture):
        return Check("image", "fail", "a png picture came back changed", _fix_of("image"))
    return Check("image", "ok", f"opencv {opencv.__version__} decoded a png file")


def check_folder(name: str, folder: Path, option: str) -> Check:
    """Look at room and permission where data or runs will lie; nothing is created."""
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return Check(name, "fail", f"{folder} cannot be written", f"give {option}")
    free = shutil.disk_usage(parent).free
    text = f"{folder}{'' if folder.exists() else ' (not made yet)'}, {human_bytes(free)} free"
    if free < MIN_FREE_BYTES:
        return Check(name, "warn", text, f"free some room, or give {option}")
    return Check(name, "ok", text)


def check_threads() -> Check:
    """Compare the cores this process may use with what OMP_NUM_THREADS asks for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    text = f"{plural(usable or 1, 'usable core')}, OMP_NUM_THREADS {asked or 'unset'}"
    if asked.isdigit() and int(asked) > (usable or 1):
        return Check("threads", "warn", text, "unset OMP_NUM_THREADS")
    return Check("threads", "ok", text)


def check_shared_memory() -> Check:
    """Look at the room for tensors shared between ranks."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system")
    free = shutil.disk_usage(shared).free
    text = f"{human_bytes(free)} free in {shared}"
    if free < MIN_SHARED_MEMORY_BYTES:
        return Check("shared memory", "warn", text, "docker run --shm-size=1g, or less gpus")
    return Check("shared memory", "ok", text)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
