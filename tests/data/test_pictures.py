"""2D pictures as volumes of one slice."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Orientation
from PIL import Image, ImageOps
from skimage.io import imsave

from heatmask.data.paths import is_picture
from heatmask.data.readers.pictures import convert_picture, read_picture
from heatmask.data.readers.read import read_scan
from heatmask.data.scan import load_scan
from heatmask.errors import InputError


def draw_picture() -> np.ndarray:
    """Five rows, seven columns; each pixel its own value."""
    return np.arange(35, dtype=np.uint8).reshape(5, 7) * 7


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif"])
def test_columns_and_rows_lie_as_they_are_looked_at(tmp_path: Path, name: str) -> None:
    """Left of the picture is the patient's right, its top is anterior."""
    pixels = draw_picture()
    imsave(tmp_path / name, pixels, check_contrast=False)
    array, affine = read_picture(tmp_path / name)
    assert array.shape == (7, 5, 1)
    assert array.dtype == np.float32
    assert array[2, 4, 0] == pixels[4, 2]
    assert "".join(nib.aff2axcodes(affine)) == "LPS"
    assert nib.affines.voxel_sizes(affine) == pytest.approx([256 / 7, 256 / 7, 1])


def test_colours_are_brightness(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., 3], pixels[1, 2, :3], pixels[3, 5, 1] = 255, 200, 100
    imsave(tmp_path / "a.png", pixels, check_contrast=False)
    array, _ = read_picture(tmp_path / "a.png")
    assert array.shape == (6, 4, 1)
    assert array[2, 1, 0] == pytest.approx(200, rel=1e-5)
    assert array[5, 3, 0] == pytest.approx(71.54, rel=1e-4)


def test_a_palette_is_not_its_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 1], [0, 0]], np.uint8), "P")
    picture.putpalette([90, 90, 90, 20, 20, 20])
    picture.save(tmp_path / "a.png")
    array, _ = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(array[:, :, 0].T, [[90, 20], [20, 20], [90, 90]], rtol=1e-5)


def test_grey_with_alpha_is_grey(tmp_path: Path) -> None:
    pixels = np.stack([draw_picture(), np.full((5, 7), 3, np.uint8)], axis=-1)
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[0][..., 0].T, draw_picture())


@pytest.mark.fault("F")
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_what_is_transparent_is_black_whatever_lies_beneath(tmp_path: Path, mode: str) -> None:
    pixels = draw_picture() + 9
    pixels[:2] = 255
    if mode == "P":
        Image.fromarray(pixels).convert("P").save(tmp_path / "a.png", transparency=255)
    else:
        picture = Image.fromarray(pixels).convert(mode)
        picture.putalpha(Image.fromarray(np.where(pixels == 255, 0, 255).astype(np.uint8)))
        picture.save(tmp_path / "a.png")
    expected = np.where(pixels == 255, 0, pixels)
    array, _ = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(array[..., 0].T, expected, rtol=1e-5)


def test_sixteen_bits_stay(tmp_path: Path) -> None:
    imsave(tmp_path / "a.png", np.array([[0, 4095], [70, 65535]], np.uint16), check_contrast=False)
    assert read_picture(tmp_path / "a.png")[0][..., 0].tolist() == [[0, 70], [4095, 65535]]


@pytest.mark.parametrize("top", [255, 4000])
def test_a_converted_picture_is_the_picture(tmp_path: Path, top: int) -> None:
    pixels = np.array([[0, top, 3], [5, 9, 1]], np.uint16 if top > 255 else np.uint8)
    imsave(tmp_path / "a.png", pixels, check_contrast=False)
    convert_picture(tmp_path / "a.png", tmp_path / "a.nii.gz")
    array, affine = read_picture(tmp_path / "a.png")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, affine, rtol=1e-6)


@pytest.mark.fault("F")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [".png", ".tif", "tiff_lzw .tif", ".jpg"])
def test_the_network_sees_a_turned_picture_upright(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    """The pixels stay as stored, so that a mask fits them."""
    stored = np.repeat(np.repeat(draw_picture(), 8, axis=0), 8, axis=1)
    exif = Image.Exif()
    exif[274] = orientation
    *compression, suffix = kind.split()
    path = tmp_path / f"a{suffix}"
    options = {"tiffinfo": {274: orientation}} if suffix == ".tif" else {"exif": exif}
    options |= {"compression": compression[0]} if compression else {}
    options |= {"quality": 100} if suffix == ".jpg" else {}
    Image.fromarray(stored).save(path, **options)
    ((_, volume),) = load_scan(path, min_slices=1)
    np.testing.assert_allclose(volume[0, ..., 0].T, stored, atol=3)
    with path.open("rb") as file, Image.open(file) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    upright = Orientation("LPS", labels=None)(volume)
    np.testing.assert_allclose(upright[0, ..., 0].T, shown, atol=3)
    assert upright.affine[:2, 3].tolist() == [0, 0]
    turned = any("turns or mirrors" in warning for warning in read_scan(path).warnings)
    assert turned == (orientation > 1)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "PA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_all_kinds_of_pixels_turn(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(draw_picture()).point(lambda value: 255 * (value > 99))
    picture = picture.convert("RGB").convert(mode) if mode in ("P", "CMYK") else picture
    picture = picture.convert("LA").convert(mode) if mode == "PA" else picture.convert(mode)
    path = tmp_path / ("a.png" if mode in ("P", "1", "LA", "RGBA") else "a.tif")
    options = {"exif": Image.Exif()} if path.suffix == ".png" else {"tiffinfo": {274: 6}}
    if path.suffix == ".png":
        options["exif"][274] = 6
    picture.save(path, **options)
    array, affine = read_picture(path)
    top = 1 if mode == "1" else 255
    np.testing.assert_allclose(array[..., 0].T, top * (draw_picture() > 99), rtol=1e-5)
    assert "".join(nib.aff2axcodes(affine)) == "PRS"


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG, and no more")
    with pytest.raises(InputError, match=r"picture '.*a\.png' cannot be read"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"cannot be read"):
        read_picture(tmp_path / "absent.png")
    imsave(tmp_path / "a.tif", np.zeros((5, 9, 8), np.uint8), check_contrast=False)
    with pytest.raises(InputError, match=r"holds 5 pictures"):
        read_picture(tmp_path / "a.tif")


def test_pictures_are_known_by_their_names() -> None:
    assert is_picture(Path("a/b.JPG"))
    assert not is_picture("b.nii.gz")
    assert not is_picture("png")
