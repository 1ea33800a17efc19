"""Crop, resize and mirror frames with parameters of their own for every sample.

A crop is a box of whole pixels, as in the usual RandomResizedCrop; it is resized bilinearly, and
what lies outside of the box has no influence. On a GPU one batched `grid_sample` does it. On a CPU
that is ten times slower than OpenCV on single planes of bytes, which rounds to whole bytes; the two
agree within that rounding.
"""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmtool.config.schema import Augment
from mmtool.randomness import sample_uniform

_SALT_FLIP, _SALT_AREA, _SALT_ASPECT, _SALT_TOP, _SALT_LEFT = range(101, 106)
# The usual crop draws its aspect ratio log-uniformly from 3/4 to 4/3.
_LARGEST_ASPECT = math.log(4.0 / 3.0)


def draw_boxes(
    index: Tensor, augment: Augment, size: tuple[int, int], *, seed: int, epoch: int | None
) -> Tensor:
    """Give (top, left, height, width, mirrored) of each sample for frames of this height and width.

    [batch, 5] int64, a function of (seed, epoch, sample id) alone; without an epoch (evaluation)
    the box is the whole frame.
    """
    height, width = size
    zero = torch.zeros_like(index)
    box_height, box_width, top, left = zero + height, zero + width, zero, zero
    if epoch is not None and augment.crop_scale is not None:
        low, high = augment.crop_scale
        area = low + (high - low) * sample_uniform(index, seed, epoch, _SALT_AREA)
        spread = 2.0 * sample_uniform(index, seed, epoch, _SALT_ASPECT) - 1.0
        ratio = torch.exp(spread * _LARGEST_ASPECT)
        pixels = area * (height * width)
        box_width = (pixels * ratio).sqrt().round().clamp(1, width).long()
        box_height = (pixels / ratio).sqrt().round().clamp(1, height).long()
        left = _placed(sample_uniform(index, seed, epoch, _SALT_LEFT), width - box_width)
        top = _placed(sample_uniform(index, seed, epoch, _SALT_TOP), height - box_height)
    mirrored = zero
    if epoch is not None and augment.flip:
        mirrored = (sample_uniform(index, seed, epoch, _SALT_FLIP) < 0.5).long()
    return torch.stack([top, left, box_height, box_width, mirrored], dim=1)


def _placed(uniform: Tensor, room: Tensor) -> Tensor:
    return torch.minimum((uniform * (room + 1)).long(), room)


def crop_on_device(frames: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Give float frames [batch, (time,) channel, height, width] cropped and resized to `size`."""
    flat = frames.flatten(1, -3)  # [batch, time * channel, height, width]
    height, width = flat.shape[-2:]
    top, left, box_height, box_width, mirrored = boxes.unbind(1)
    down = _source(top, box_height, size[0], height)
    across = _source(left, box_width, size[1], width)
    across = torch.where(mirrored.unsqueeze(1) > 0, across.flip(1), across)
    grid = torch.stack(
        torch.broadcast_tensors(across.unsqueeze(1), down.unsqueeze(2)), dim=3
    )  # [batch, height, width, 2]
    sampled = functional.grid_sample(
        flat, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.unflatten(1, frames.shape[1:-2])


def _source(first: Tensor, length: Tensor, num_out: int, num_in: int) -> Tensor:
    """Where along one axis each output pixel is read, in [-1, 1]; [batch, num_out]."""
    at = torch.arange(num_out, device=first.device) + 0.5
    inside = at * (length / num_out).unsqueeze(1) - 0.5
    inside = torch.minimum(inside.clamp_min(0.0), (length - 1).unsqueeze(1).float())
    return (first.unsqueeze(1) + inside + 0.5) * (2.0 / num_in) - 1.0


def crop_on_host(
    frames: NDArray[np.uint8],
    boxes: NDArray[np.int64] | None,
    out: NDArray[np.uint8] | NDArray[np.float32],
    tables: NDArray[np.float32] | None,
) -> None:
    """Write frames [batch, ..., channel, height, width] into `out`, cropped and resized to it.

    With `tables` [channel, 256] every byte becomes its channel's number in there, else bytes stay.
    `boxes` None means that the frames have the right size already.
    """
    size = out.shape[-2:]
    num_channels = frames.shape[-3]
    planes = frames.reshape(len(frames), -1, *frames.shape[-2:])
    targets = out.reshape(len(out), -1, *size)
    resized, flipped = np.empty(size, np.uint8), np.empty(size, np.uint8)
    whole = (0, 0, *frames.shape[-2:], 0)
    all_boxes = [whole] * len(frames) if boxes is None else boxes.tolist()
    for sample, target_of, box in zip(planes, targets, all_boxes, strict=True):
        top, left, height, width, is_mirrored = box
        for number, (plane, target) in enumerate(zip(sample, target_of, strict=True)):
            source = plane[top : top + height, left : left + width]
            if source.shape != size:
                cv2.resize(source, (size[1], size[0]), dst=resized)
                source = resized
            if is_mirrored:
                cv2.flip(source, 1, dst=flipped)
                source = flipped
            if tables is None:
                target[...] = source
            else:
                cv2.LUT(source, tables[number % num_channels], target)
