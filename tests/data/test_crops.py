import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.config.schema import Augment
from mmtool.data.crops import crop_on_device, crop_on_host, draw_boxes

AUGMENT = Augment(size=10, crop_scale=(0.08, 1.0), flip=True)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_boxes_lie_inside_the_frame(height, width, seed, epoch):
    boxes = draw_boxes(torch.arange(50), AUGMENT, (height, width), seed=seed, epoch=epoch)
    top, left, box_height, box_width, mirrored = boxes.unbind(1)

    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((box_height >= 1).all() and (box_width >= 1).all())
    assert bool((top + box_height <= height).all() and (left + box_width <= width).all())
    assert set(mirrored.tolist()) <= {0, 1}


def test_boxes_cover_the_areas_asked_for_and_every_corner():
    boxes = draw_boxes(torch.arange(4000), AUGMENT, (256, 341), seed=0, epoch=0)
    top, left, height, width, mirrored = (column.double() for column in boxes.unbind(1))
    area = height * width / (256 * 341)

    assert area.min() < 0.1
    assert area.max() > 0.9
    assert 0.45 < mirrored.mean() < 0.55
    assert bool((top == 0).any() and (top + height == 256).any())
    assert bool((left == 0).any() and (left + width == 341).any())


def test_host_and_device_crop_alike_within_rounding_to_bytes():
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (40, 2, 3, 33, 47), dtype=np.uint8)
    boxes = draw_boxes(torch.arange(40), AUGMENT, (33, 47), seed=3, epoch=1)
    on_host = np.empty((40, 2, 3, 10, 12), np.uint8)

    crop_on_host(frames, boxes.numpy(), on_host, None)
    on_device = crop_on_device(torch.from_numpy(frames).float(), boxes, (10, 12))

    assert on_device.shape == on_host.shape
    assert np.abs(on_device.numpy() - on_host).max() <= 1.01


def test_a_crop_sees_nothing_outside_of_its_box():
    frames = np.zeros((1, 1, 20, 20), np.uint8)
    frames[0, 0, 5:9, 6:12] = 200
    boxes = torch.tensor([[5, 6, 4, 6, 1]])
    on_host = np.empty((1, 1, 16, 16), np.uint8)

    crop_on_host(frames, boxes.numpy(), on_host, None)
    on_device = crop_on_device(torch.from_numpy(frames).float(), boxes, (16, 16))

    assert (on_host == 200).all()
    assert torch.allclose(on_device, torch.tensor(200.0), atol=1e-2)


def test_bytes_become_what_the_table_of_their_channel_says():
    frames = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    tables = np.stack([np.arange(256) * factor for factor in (1.0, 0.5, -1.0)]).astype(np.float32)
    out = np.empty((1, 3, 2, 2), np.float32)

    crop_on_host(frames, None, out, tables)

    wanted = frames * np.array([1.0, 0.5, -1.0]).reshape(1, 3, 1, 1)
    assert np.array_equal(out, wanted.astype(np.float32))
