"""The usual training recipe for CREMA-D, written anew from its description, to compare with.

Peng et al., OGM-GE, CVPR 2022: frames are kept as JPEG, decoded, cropped and normalised for every
sample by worker processes, which also resample each wave and take its spectrogram anew in every
epoch. The loop wraps the model in DataParallel, sums the scores of modulation by a Python loop over
samples, branches on the host, reads the deviation of every gradient and the losses with `.item()`,
and starts its workers again in every epoch. float32 throughout.

librosa is replaced by torchaudio's resampling, its filter computed once, and numpy's Fourier
transform, which cost no more.
"""

import os
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torchaudio
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

NUM_CLASSES = 6
CLASS_NAMES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
ALPHA = 0.8
JPEG_QUALITY = 95
RATE_HZ, SECONDS, NUM_FFT, HOP = 22_050, 3, 512, 353


def extract_frames(release: Path, folder: Path, *, num_frames: int = 3) -> None:
    """Write one JPEG per second of every clip; clips too short for `num_frames` repeat the last."""
    for clip in sorted((release / "VideoFlash").glob("*.flv")):
        target = folder / clip.stem
        target.mkdir(parents=True)
        capture = cv2.VideoCapture(str(clip))
        step, kept = int(capture.get(cv2.CAP_PROP_FPS)), []
        number = 0
        while True:
            is_read, frame = capture.read()
            if not is_read:
                break
            if number % step == 0:
                kept.append(frame)
            number += 1
        capture.release()
        kept += [kept[-1]] * (num_frames - len(kept))
        for number, frame in enumerate(kept):
            name = str(target / f"{number:05d}.jpg")
            cv2.imwrite(name, frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


class ReferenceData(Dataset):
    """Decodes and transforms one sample at a time."""

    def __init__(self, release: Path, frames: Path, *, num_frames: int, copies: int = 1) -> None:
        clips = sorted(p.stem for p in frames.iterdir())
        self.clips = clips * copies
        self.release, self.frames, self.num_frames = release, frames, num_frames
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> tuple[np.ndarray, Tensor, int]:
        clip = self.clips[position]
        spectrogram = log_spectrogram(self.release / "AudioWAV" / f"{clip}.wav")
        folder = self.frames / clip
        names = os.listdir(folder)  # noqa: PTH208 - unsorted, as the recipe has it
        images = torch.zeros((self.num_frames, 3, 224, 224))
        for number in range(self.num_frames):
            image = Image.open(folder / names[number]).convert("RGB")
            images[number] = self.transform(image)
        label = CLASS_NAMES.index(clip.split("_")[2])
        return spectrogram, images.permute(1, 0, 2, 3), label


def log_spectrogram(path: Path) -> np.ndarray:
    """Give the 257 x 188 log-spectrogram of a clip tiled to three seconds."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    raw = torch.from_numpy(samples.astype(np.float32) / 32768.0)
    resampled = _resampler(rate)(raw).numpy()
    tiled = np.tile(resampled, 3)[: RATE_HZ * SECONDS].clip(-1.0, 1.0)
    padded = np.pad(tiled, NUM_FFT // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, NUM_FFT)[::HOP]
    window = np.hanning(NUM_FFT + 1)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(windows * window, axis=1).T
    return np.log(np.abs(spectrum) + 1e-7).astype(np.float32)


@cache
def _resampler(rate: int) -> nn.Module:
    return torchaudio.transforms.Resample(rate, RATE_HZ)


def reference_loader(
    data: ReferenceData, *, batch_size: int, num_workers: int, persistent: bool = False
) -> DataLoader:
    """Give the loader as the recipe has it; `persistent` is kinder than it is."""
    return DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=persistent and num_workers > 0,
    )


class ReferenceModel(nn.Module):
    """Two ResNet-18, their mean features concatenated, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_net, self.visual_net = _body(1), _body(3)
        self.head = nn.Linear(1024, NUM_CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, channels, time, height, width = visual.shape
        folded = visual.permute(0, 2, 1, 3, 4).contiguous()
        v = self.visual_net(folded.view(batch * time, channels, height, width))
        a = self.audio_net(audio)
        v = v.view(batch, time, *v.shape[1:]).permute(0, 2, 1, 3, 4)
        a = functional.adaptive_avg_pool2d(a, 1).flatten(1)
        v = functional.adaptive_avg_pool3d(v, 1).flatten(1)
        return a, v, self.head(torch.cat((a, v), dim=1))


def _body(num_channels: int) -> nn.Module:
    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(*list(network.children())[:-2])


class ReferenceTraining:
    """The loop's body; `steps` over a loader is an epoch."""

    def __init__(self, device: torch.device, *, seed: int = 0, modulate: bool = True) -> None:
        torch.manual_seed(seed)
        self.device, self.modulate = device, modulate
        self.model = nn.DataParallel(ReferenceModel().to(device))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4
        )
        self.criterion, self.softmax = nn.CrossEntropyLoss(), nn.Softmax(dim=1)
        self.losses = [0.0, 0.0, 0.0]

    def epoch(self, loader: DataLoader) -> Iterator[int]:
        """Train on every batch; give its size after each."""
        self.model.train()
        for spectrogram, images, label in loader:
            self.step(spectrogram.to(self.device), images.to(self.device), label.to(self.device))
            yield len(label)

    def step(self, spectrogram: Tensor, images: Tensor, label: Tensor) -> None:
        """Train on [batch, 257, 188], [batch, 3, time, 224, 224] and [batch]."""
        self.optimizer.zero_grad()
        a, v, out = self.model(spectrogram.unsqueeze(1).float(), images.float())
        head = self.model.module.head
        out_a = torch.mm(a, head.weight[:, :512].t()) + head.bias / 2
        out_v = torch.mm(v, head.weight[:, 512:].t()) + head.bias / 2
        loss = self.criterion(out, label)
        loss_a, loss_v = self.criterion(out_a, label), self.criterion(out_v, label)
        loss.backward()
        if self.modulate:
            self._modulate(out_a, out_v, label)
        self.optimizer.step()
        for position, value in enumerate((loss, loss_a, loss_v)):
            self.losses[position] += value.item()

    def _modulate(self, out_a: Tensor, out_v: Tensor, label: Tensor) -> None:
        score_v = sum(self.softmax(out_v)[i][label[i]] for i in range(out_v.size(0)))
        score_a = sum(self.softmax(out_a)[i][label[i]] for i in range(out_a.size(0)))
        ratio_v = score_v / score_a
        ratio_a = 1 / ratio_v
        coefficient_a = coefficient_v = 1
        if ratio_v > 1:
            coefficient_v = 1 - torch.tanh(ALPHA * torch.relu(ratio_v))
        else:
            coefficient_a = 1 - torch.tanh(ALPHA * torch.relu(ratio_a))
        for name, parameter in self.model.named_parameters():
            layer, gradient = name.split(".")[1], parameter.grad
            if "net" not in layer or len(gradient.size()) != 4:
                continue
            coefficient = coefficient_a if "audio" in layer else coefficient_v
            noise = torch.zeros_like(gradient).normal_(0, gradient.std().item() + 1e-8)
            parameter.grad = gradient * coefficient + noise
