import gzip
import io
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmtool.media.decode import decode as decode_with_facts
from mmtool.media.failure import MediaError
from mmtool.media.image import fitted, read_idx
from mmtool.media.records import parse_idx
from mmtool.media.spec import FramesSpec, Source


def decode(source, spec):
    return decode_with_facts(source, spec).array


SMALL = FramesSpec(height=8, width=12)
GRAY = FramesSpec(height=28, width=28, channels=1)


def idx_bytes(array: np.ndarray) -> bytes:
    code = {"u1": 0x08, "i4": 0x0C, "f8": 0x0E}[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def picture() -> np.ndarray:
    """Give a picture [height, width, RGB], red on the left and blue on the right."""
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:, :24] = (200, 10, 10)
    rgb[:, 24:] = (10, 10, 200)
    return rgb


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp"])
def test_image_files_come_as_rgb_channels_first(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(cv2.imencode(ending, picture()[:, :, ::-1])[1].tobytes())

    frame = decode(Source(path), SMALL)

    assert frame.shape == (3, 8, 12)
    assert frame.dtype == np.uint8
    np.testing.assert_allclose(frame[:, 4, 2], (200, 10, 10), atol=20)
    np.testing.assert_allclose(frame[:, 4, 9], (10, 10, 200), atol=20)


def test_an_image_inside_an_archive_is_the_same_image(tmp_path):
    content = cv2.imencode(".png", picture())[1].tobytes()
    (tmp_path / "a.png").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.png", content)

    np.testing.assert_array_equal(
        decode(Source(tmp_path / "a.zip", "x/a.png"), SMALL),
        decode(Source(tmp_path / "a.png"), SMALL),
    )


def test_a_damaged_image_and_a_still_for_many_frames_are_refused(tmp_path):
    content = cv2.imencode(".png", picture())[1].tobytes()
    (tmp_path / "cut.png").write_bytes(content[:40])
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(MediaError, match=r"cut\.png") as caught:
        decode(Source(tmp_path / "cut.png"), SMALL)
    assert caught.value.reason == "decode-error"
    with pytest.raises(MediaError, match="takes 3 frames") as caught:
        decode(Source(tmp_path / "a.png"), FramesSpec(num_frames=3))
    assert caught.value.reason == "no-video"


def test_shrinking_averages_and_growing_interpolates():
    board = np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2 * 200

    halved = fitted(board, FramesSpec(height=4, width=4, channels=1))
    mixed = fitted(board, FramesSpec(height=4, width=16, channels=1))
    grown = fitted(np.array([[0, 100]], np.uint8), FramesSpec(height=1, width=4, channels=1))

    assert (halved == 100).all()
    assert (mixed == 100).all()
    assert grown[0, 0].tolist() == [0, 25, 75, 100]


def test_gray_becomes_three_equal_channels_and_colour_becomes_gray():
    gray = np.full((4, 4), 77, np.uint8)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200

    assert (fitted(gray, FramesSpec(height=4, width=4)) == 77).all()
    # 0.299 of red, ITU-R BT.601.
    assert (fitted(red, FramesSpec(height=4, width=4, channels=1)) == 60).all()


@given(
    array=arrays(
        st.sampled_from([np.uint8, np.int32, np.float64]),
        array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements={"min_value": 0, "max_value": 100},
    ),
    zipped=st.booleans(),
)
def test_idx_files_give_back_what_was_written(array, zipped):
    content = idx_bytes(array)

    found = parse_idx(gzip.compress(content) if zipped else content, "a")

    np.testing.assert_array_equal(found, array)


@given(st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_idx_file_is_made_of_noise(content):
    try:
        found = parse_idx(content, "noise")
    except MediaError as error:
        assert "noise" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert len(content) == 4 + 4 * found.ndim + found.nbytes


def test_records_of_an_idx_file_are_read_by_many_threads(tmp_path):
    images = np.arange(50 * 28 * 28).reshape(50, 28, 28).astype(np.uint8)
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(images)))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: decode(Source(path, row=row), GRAY), range(50)))

    np.testing.assert_array_equal(np.stack(found)[:, 0], images)
    with pytest.raises(MediaError, match="holds 50 records") as caught:
        decode(Source(path, row=50), GRAY)
    assert caught.value.reason == "missing"


def test_a_replaced_idx_file_is_read_again_and_nobody_can_change_the_kept_one(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    assert read_idx(path).tolist() == [0, 0, 0]
    path.write_bytes(idx_bytes(np.ones(4, np.uint8)))

    assert read_idx(path).tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        read_idx(path)[0] = 7


def test_truncated_records_and_wrong_shapes_are_refused(tmp_path):
    whole = idx_bytes(np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "cut").write_bytes(whole[:-5])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(whole)[:-9])
    (tmp_path / "flat").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 4, 4)))
    (tmp_path / "float.npy").write_bytes(buffer.getvalue())

    for name in ("cut", "cut.gz", "flat", "float.npy"):
        with pytest.raises(MediaError, match=name) as caught:
            decode(Source(tmp_path / name, row=0), GRAY)
        assert caught.value.reason == "decode-error"


def test_a_picture_of_one_colour_is_flagged(tmp_path):
    for name, pixels in (("plain", np.full((4, 4, 3), 9, np.uint8)), ("drawn", picture())):
        (tmp_path / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    plain, drawn = (
        decode_with_facts(Source(tmp_path / n), SMALL).facts for n in ("plain", "drawn")
    )

    assert plain.flags == ("constant",)
    assert drawn.flags == ()
    assert (drawn.codec, drawn.width, drawn.height) == ("png", 48, 32)


def test_real_digits_and_their_labels(kit):
    images = kit / "mnist" / "t10k-images-idx3-ubyte.gz"
    labels = read_idx(kit / "mnist" / "t10k-labels-idx1-ubyte.gz")

    first = decode(Source(images, row=0), GRAY)

    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert first.shape == (1, 28, 28)
    np.testing.assert_array_equal(first[0], read_idx(images)[0])
    assert decode(Source(images, row=0), SMALL).shape == (3, 8, 12)


def test_numbers_of_a_known_range_become_a_picture(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[0.0, 0.5], [1.0, 7.0]], [[0, np.nan], [0, 0]]]))
    spec = FramesSpec(height=2, width=2, channels=1, value_range=(0.0, 1.0))

    found = decode(Source(tmp_path / "a.npy", row=0), spec)

    assert found.tolist() == [[[0, 128], [255, 255]]]
    with pytest.raises(MediaError) as caught:
        decode(Source(tmp_path / "a.npy", row=1), spec)
    assert caught.value.reason == "non-finite"


def test_pictures_of_the_web_are_decoded_upright_and_in_true_colours(tmp_path):
    images = pytest.importorskip("PIL.Image")
    drawn = images.fromarray(picture())
    turned = images.Exif()
    turned[0x112] = 6
    drawn.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    drawn.convert("P", palette=images.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    drawn.save(tmp_path / "moving.gif", save_all=True, append_images=[images.new("RGB", (48, 32))])
    drawn.rotate(90, expand=True).save(tmp_path / "turned.jpg", quality=95, exif=turned)
    spec = FramesSpec(height=32, width=48)

    for name in ("cmyk.jpg", "palette.png", "moving.gif", "turned.jpg"):
        found = decode(Source(tmp_path / name), spec).transpose(1, 2, 0)
        assert np.abs(found.astype(int) - picture()).mean() < 6, name


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_a_picture_cut_short_is_refused_not_filled_with_gray(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    content = cv2.imencode(ending, noise)[1].tobytes()
    (tmp_path / f"a{ending}").write_bytes(content[: len(content) * 6 // 10])

    with pytest.raises(MediaError, match="truncated") as caught:
        decode(Source(tmp_path / f"a{ending}"), SMALL)

    assert caught.value.reason == "decode-error"
