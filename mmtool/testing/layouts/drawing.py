"""Pictures as arrays: a face whose brows and mouth tell the emotion, a moving shape per class."""

import colorsys
import functools

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# Brow slope, brow height, mouth curve, eye opening of each emotion.
EXPRESSIONS = {
    "ANG": (-1.0, -0.6, -0.5, 0.6),
    "DIS": (-0.5, -0.2, -1.0, 0.3),
    "FEA": (1.0, 1.0, -0.3, 1.4),
    "HAP": (0.2, 0.5, 1.0, 0.8),
    "NEU": (0.0, 0.0, 0.0, 1.0),
    "SAD": (0.9, 0.1, -0.8, 0.5),
}
NUM_OPENINGS = 4


def faces(
    emotion: str,
    look: int,
    generator: np.random.Generator,
    *,
    width: int,
    height: int,
    strength: float = 1.0,
    jitter: float = 0.08,
) -> Picture:
    """Give one face per opening of the mouth (0 closed), number x height x width x RGB.

    `strength` scales how far brows, eyes and mouth leave the neutral face; `jitter` is the
    deviation of each feature. `look` sets the skin tone and the place of the head.
    """
    neutral = np.array(EXPRESSIONS["NEU"])
    shape = neutral + strength * (np.array(EXPRESSIONS[emotion]) - neutral)
    slope, raised, curve, eyes = shape + generator.normal(0, jitter, 4)
    centre_x = 0.06 * ((look * 5) % 7 / 3 - 1)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x = (columns - width / 2) / (height / 2) - centre_x
    y = (rows - height / 2) / (height / 2)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = (70, 90, 110)
    skin = np.array((235, 190, 160)) * (0.45 + 0.55 * ((look * 3) % 8) / 7)
    picture[(x / 0.62) ** 2 + (y / 0.85) ** 2 < 1] = skin.astype(np.uint8)
    for side in (-1, 1):
        along = (x - side * 0.27) * -side
        eye = (along / 0.13) ** 2 + ((y + 0.18) / max(0.02, 0.07 * eyes)) ** 2 < 1
        picture[eye] = (250, 250, 250)
        picture[(along**2 + (y + 0.18) ** 2 < 0.045**2) & eye] = (20, 20, 20)
        brow_y = -0.38 - 0.07 * raised - slope * 0.45 * along
        picture[(np.abs(along) < 0.18) & (np.abs(y - brow_y) < 0.035)] = (40, 25, 15)
    drawn = np.repeat(picture[None], NUM_OPENINGS, axis=0)
    bend = 0.45 - curve * (0.9 * x**2 - 0.08)
    for opening in range(NUM_OPENINGS):
        gap = 0.03 + 0.045 * opening * np.clip(1 - (x / 0.3) ** 2, 0, 1)
        drawn[opening][(np.abs(x) < 0.3) & (np.abs(y - bend) < gap)] = (150, 30, 40)
    return drawn


@functools.lru_cache(maxsize=8)
def _grid(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return rows, columns


def class_frames(
    index: int,
    num_classes: int,
    num_frames: int,
    generator: np.random.Generator,
    *,
    width: int,
    height: int,
    contrast: float = 1.0,
    jitter: float = 0.02,
    during: tuple[float, float] = (0.0, 1.0),
) -> Picture:
    """Give frames in which, within a share of the time, the picture cue of one class is seen.

    The cue is the hue of a moving patch and the angle of the stripes in it; `contrast` blends the
    patch into the grey background, `jitter` is the deviation of the hue as a share of the circle.
    Only 16 pictures are drawn; the frames repeat them in order, so that clips are cheap.
    """
    hue = (index / num_classes + generator.normal(0, jitter)) % 1.0
    colour = np.array(colorsys.hsv_to_rgb(hue, 0.9, 1.0), np.float32) * 255
    rows, columns = _grid(width, height)
    angle = np.pi * (index * 0.382 % 1.0)
    along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    stripes = (np.sin(along * np.float32(2 * np.pi / 12)) > 0)[..., None]
    inside = np.where(stripes, colour, colour * 0.45)
    grey = np.float32(110 + 20 * generator.uniform(-1, 1))
    grain = generator.normal(0, 6, (height, width, 1)).astype(np.float32)
    background = np.broadcast_to(grey + grain, (height, width, 3))
    shown = np.asarray(background + contrast * (inside - background), np.float32)
    still = np.clip(background, 0, 255).astype(np.uint8)
    patch = np.clip(shown, 0, 255).astype(np.uint8)
    start = generator.uniform(0, 2 * np.pi)
    size = max(4, int(min(width, height) * 0.55))
    drawn = np.repeat(still[None], 17, axis=0)
    for step in range(16):
        turn = start + 2 * np.pi * step / 16
        left = int((width - size) * (0.5 + 0.45 * np.cos(turn)))
        top = int((height - size) * (0.5 + 0.45 * np.sin(turn)))
        drawn[step, top : top + size, left : left + size] = patch[
            top : top + size, left : left + size
        ]
    number = np.arange(num_frames)
    at = (number + 0.5) / num_frames
    seen = (at >= during[0]) & (at < during[1])
    return np.asarray(drawn[np.where(seen, number // 2 % 16, 16)])
