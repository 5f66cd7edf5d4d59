"""Corruptions: the same bytes everywhere, the published strengths, and nothing at severity 0."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from cl.data.samples import ArrayPixels
from cl.errors import BadInput, UnknownName
from cl.seeds import global_state
from streams import corruption_functions as make
from streams.corruptions import (
    BY_CODE,
    CODES,
    CorruptedPixels,
    Generator,
    code_of,
    corrupted,
    parsed,
    sample_of,
)

ALL = tuple(BY_CODE)
DRAW = np.random.default_rng(0)


def photo(seed: int, size: int = 32) -> np.ndarray:
    """Smooth coloured noise, uint8 `(size, size, 3)`."""
    noise = np.random.default_rng(seed).normal(size=(size, size, 3))
    return np.clip(128 + 700 * ndimage.gaussian_filter(noise, (3, 3, 0)), 0, 255).astype(np.uint8)


PHOTOS = [photo(seed) for seed in range(8)]
GREY = np.full((32, 32, 3), 0.5)


def digests(order: int = 1) -> list[str]:
    """Digests of every corruption of two pictures, made in an order but told in another."""
    jobs = [(code, severity, row) for code in ALL for severity in (0.75, 3, 5) for row in (0, 1)]
    made = {job: corrupted(PHOTOS[job[2]], f"{job[0]}/{job[1]}", f"picture-{job[2]}") for job in jobs[::order]}
    return [hashlib.sha256(made[job].tobytes()).hexdigest() for job in jobs]


def change(code: str, severity: float) -> float:
    seen = [corrupted(image, f"{code}/{severity}", f"picture-{row}") for row, image in enumerate(PHOTOS)]
    return float(np.mean([np.abs(one.astype(int) - image) for one, image in zip(seen, PHOTOS, strict=True)]))


def test_the_same_bytes_in_any_order_and_in_another_process() -> None:
    here = digests()
    assert digests(order=-1) == here and len(set(here)) == len(here)
    program = "from tests.streams.test_corruptions import digests; print(*digests(-1))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.split() == here


@given(arrays(np.uint8, (32, 32, 3)), st.sampled_from(ALL), st.text(max_size=5))
@settings(max_examples=40)
def test_severity_0_is_the_picture(image: np.ndarray, code: str, picture: str) -> None:
    assert np.array_equal(corrupted(image, f"{code}/0", picture), image)


@given(
    arrays(np.uint8, (32, 32, 3), elements=st.sampled_from([0, 1, 128, 255])),
    st.sampled_from(ALL),
    st.integers(1, 20),
)
@settings(max_examples=150, deadline=None)
def test_any_picture_at_any_severity_stays_a_picture(image: np.ndarray, code: str, quarters: int) -> None:
    before, state = image.copy(), global_state()
    seen = corrupted(image, f"{code}/{quarters / 4:g}", "any")
    assert seen.shape == image.shape and seen.dtype == np.uint8
    assert np.array_equal(image, before) and global_state() == state


@pytest.mark.parametrize("code", ALL)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_pictures(code: str, level: int) -> None:
    with np.errstate(all="raise", under="ignore"):
        assert corrupted(np.full((32, 32, 3), level, np.uint8), f"{code}/5", "flat").dtype == np.uint8


@pytest.mark.parametrize("code", ["GN", "SN", "IN", "SP", "CO", "JP"])
def test_noise_contrast_and_jpeg_grow_with_severity(code: str) -> None:
    found = [change(code, severity) for severity in (0.5, 1, 1.5, 2, 3, 4, 5)]
    assert found == sorted(found) and found[0] > 0


def test_fractions_lie_between_whole_severities() -> None:
    assert parsed("gaussian_noise/2.5")[0][0].parameters(2.5) == pytest.approx((0.07,))
    assert BY_CODE["SW"].parameters(4.5) == pytest.approx((0.275, 0.3, 1.75, 0.625, 13, 9, 0.825))
    for code in ALL:
        for level in range(6):
            assert BY_CODE[code].parameters(level) == BY_CODE[code].levels[level]


def test_what_is_drawn_depends_on_picture_corruption_and_severity() -> None:
    first = corrupted(PHOTOS[0], "GN/5", "a")
    assert not np.array_equal(first, corrupted(PHOTOS[0], "GN/5", "b"))
    noise = [corrupted(PHOTOS[0], f"GN/{severity}", "a").astype(int) - PHOTOS[0] for severity in (4, 5)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_two_corruptions_are_applied_in_their_order() -> None:
    chained = corrupted(corrupted(PHOTOS[0], "CO/5", "a"), "JP/3", "a")
    assert np.array_equal(corrupted(PHOTOS[0], "CO/5+JP/3", "a"), chained)
    assert not np.array_equal(corrupted(PHOTOS[0], "JP/3+CO/5", "a"), chained)


# The published strengths, by what they do to pictures whose answer is known.


@pytest.mark.parametrize(("severity", "std"), list(enumerate([0.04, 0.06, 0.08, 0.09, 0.10], 1)))
def test_gaussian_noise_has_its_spread(severity: int, std: float) -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    assert (corrupted(grey, f"GN/{severity}", "a") / 255).std() == pytest.approx(std, rel=0.02)


def test_noises_have_their_moments() -> None:
    wide = np.full((256, 256, 3), 0.5)
    assert make.shot_noise(wide, DRAW, 1 / 50).var() == pytest.approx(0.5 / 50, rel=0.03)  # Poisson: mean / c
    assert make.speckle_noise(wide, DRAW, 0.2).std() == pytest.approx(0.5 * 0.2, rel=0.03)
    salted = make.impulse_noise(wide, DRAW, 0.07)
    assert (salted == 0).mean() == pytest.approx(0.035, rel=0.1) == pytest.approx((salted == 1).mean(), rel=0.1)


def test_brightness_and_saturation_are_those_of_hsv() -> None:
    x = np.concatenate([PHOTOS[0], np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))]) / 255
    hsv = rgb_to_hsv(x)
    brighter = np.dstack([hsv[..., 0], hsv[..., 1], np.clip(hsv[..., 2] + 0.3, 0, 1)])
    assert make.brightness(x, DRAW, 0.3) == pytest.approx(hsv_to_rgb(brighter))
    for factor, more in ((0.3, 0), (1.5, 0), (2.5, 0.2)):
        coloured = np.dstack([hsv[..., 0], np.clip(hsv[..., 1] * factor + more, 0, 1), hsv[..., 2]])
        assert make.saturate(x, DRAW, factor, more) == pytest.approx(hsv_to_rgb(coloured))


def test_contrast_keeps_each_channels_mean() -> None:
    x = PHOTOS[0] / 255
    less = make.contrast(x, DRAW, 0.15)
    assert less.mean((0, 1)) == pytest.approx(x.mean((0, 1))) and less.std((0, 1)) == pytest.approx(
        0.15 * x.std((0, 1))
    )


def test_jpeg_and_pixelate_are_pillows() -> None:
    file = io.BytesIO()
    Image.fromarray(PHOTOS[0]).save(file, "JPEG", quality=40)
    assert np.array_equal(corrupted(PHOTOS[0], "JP/5", "a"), np.asarray(Image.open(file)))
    small = Image.fromarray(PHOTOS[0]).resize((20, 20), Image.Resampling.BOX)  # int(32 x 0.65)
    assert np.array_equal(corrupted(PHOTOS[0], "PX/5", "a"), np.asarray(small.resize((32, 32), Image.Resampling.BOX)))


@pytest.mark.parametrize("code", ["DB", "GB", "MB", "ZB", "EL", "GU"])
def test_blurs_and_shifts_leave_a_flat_picture_alone(code: str) -> None:
    for severity in (1, 2.5, 5):
        function, parameters = BY_CODE[code].function, BY_CODE[code].parameters(severity)
        assert np.abs(function(GREY, np.random.default_rng(3), *parameters) - GREY).max() < 1 / 255 + 1e-9


def test_glass_copies_and_does_not_swap() -> None:
    """The protocol's section 4: of 50,102 distinct colours the published glass blur leaves 16,124."""
    numbered = np.arange(64 * 64 * 3).reshape(64, 64, 3) / (64 * 64 * 3) * 0.5
    distinct = np.unique(make.glass_blur(np.floor(numbered * 255) / 255, DRAW, 0, 2, 3).reshape(-1, 3), axis=0)
    assert len(distinct) < 0.9 * len(np.unique(np.floor(numbered * 255).reshape(-1, 3), axis=0))


def test_motion_has_the_angle_of_its_draw() -> None:
    point = np.zeros((65, 65, 3))
    point[32, 32] = 1
    seen = make.motion_blur(point, np.random.default_rng(5), 9, 2.5)
    rows, columns = np.nonzero(seen[:, :, 0])
    degrees = np.random.default_rng(5).uniform(-45, 45)
    assert seen.sum() == pytest.approx(3) and (columns <= 32).all()
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(np.tan(np.deg2rad(degrees)), abs=0.1)


# The package, where it is installed: an independent reading of the same parameters, and the severities of ImageNet-C.


@pytest.mark.parametrize(
    ("name", "parameters", "within"),
    [
        ("brightness", (0.3,), 1),
        ("contrast", (0.2,), 1),
        ("saturate", (2, 0), 1),
        ("pixelate", (0.4,), 1),
        ("jpeg_compression", (15,), 1),
        ("gaussian_blur", (3,), 1),
        ("defocus_blur", (6, 0.5), 1),
        ("zoom_blur", (1.21, 0.02), 1),
    ],
)
def test_what_draws_nothing_equals_the_package(name: str, parameters: tuple[float, ...], within: int) -> None:
    package = pytest.importorskip("imagecorruptions")
    theirs = package.corrupt(PHOTOS[0], severity=3, corruption_name=name)
    ours = np.clip(getattr(make, name)(PHOTOS[0] / 255, DRAW, *parameters), 0, 1) * 255
    assert np.abs(ours - theirs.astype(float)).max() <= within + 0.01


@pytest.mark.parametrize("name", ["fog", "snow", "motion_blur", "glass_blur", "shot_noise"])
def test_what_draws_is_as_strong_as_the_packages(name: str) -> None:
    # Not elastic: the package leaves the affine part out, and has parameters of its own.
    package = pytest.importorskip("imagecorruptions")
    from streams.imagenet_corruptions import imagenet_corrupted

    parameters = {
        "fog": (2.5, 1.7), "snow": (0.55, 0.3, 4, 0.9, 12, 8, 0.7), "motion_blur": (15, 8), "glass_blur": (1, 2, 3),
        "shot_noise": (1 / 12,),
    }[name]  # fmt: skip
    assert package
    images = [photo(seed, 64) for seed in range(12)]
    theirs = np.mean(
        [np.abs(imagenet_corrupted(x, f"{name}/3", str(n)).astype(float) - x) for n, x in enumerate(images)]
    )
    made = [np.clip(getattr(make, name)(x / 255, DRAW, *parameters), 0, 1) * 255 for x in images]
    ours = np.mean([np.abs(one - x) for one, x in zip(made, images, strict=True)])
    assert ours == pytest.approx(theirs, rel=0.15)


def test_the_package_is_seeded_for_each_picture_and_moves_no_generator() -> None:
    pytest.importorskip("imagecorruptions")
    from streams.imagenet_corruptions import imagenet_corrupted

    image, before = photo(1, 64), global_state()
    for code in ALL:
        first = imagenet_corrupted(image, f"{code}/2", "a")
        imagenet_corrupted(image, "GN/1", "b")
        assert np.array_equal(imagenet_corrupted(image, f"{code}/2", "a"), first), code
        assert not np.array_equal(first, image)
    assert np.array_equal(imagenet_corrupted(image, "GN/0", "a"), image) and global_state() == before
    with pytest.raises(BadInput, match="whole ones only"):
        imagenet_corrupted(image, "GN/2.5", "a")


def test_without_the_package_there_is_a_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.imagenet_corruptions import imagenet_corrupted

    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(BadInput, match=r"pip install 'palimpsest-cl\[corruptions\]'"):
        imagenet_corrupted(PHOTOS[0], "GN/1", "a")


# Names, and pixels on demand.


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("gausian_noise/5", "did you mean gaussian_noise"),
        ("GN/6", "severity must be 0 to 5, not 6"),
        ("GN/-1", "severity"),
        ("GN/nan", "severity"),
        ("GN", "write it as gaussian_noise/5"),
        ("GN/five", "write it as gaussian_noise/5"),
        ("GN/5+", "unknown corruption ''"),
    ],
)
def test_conditions_that_cannot_be_read(condition: str, told: str) -> None:
    with pytest.raises(BadInput, match=told.replace("?", r"\?")):
        parsed(condition)


def test_names_and_codes() -> None:
    assert code_of("jpeg_compression") == "JP" == code_of("JP") and len(CODES) == 15 and len(ALL) == 19
    with pytest.raises(UnknownName):
        code_of("noise")


def test_pixels_are_made_on_demand_and_kept() -> None:
    made: list[str] = []

    def counting(image: np.ndarray, condition: str, picture: str) -> np.ndarray:
        made.append(picture)
        return corrupted(image, condition, picture)

    base = ArrayPixels(["a|b", "c"], np.stack(PHOTOS[:2]))
    pixels = CorruptedPixels(base, Generator(counting, ()))
    ids = [sample_of("c", "GN/5", 0), sample_of("a|b", "CO/2", 0), sample_of("c", "GN/5", 3)]
    images = pixels.read(ids)
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8 and made == ["c", "a|b"]
    assert torch.equal(images[0], images[2]) and torch.equal(pixels.read(ids[1:2])[0], images[1]) and len(made) == 2
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), corrupted(PHOTOS[0], "CO/2", "a|b"))


def test_digests_tell_pictures_conditions_and_base_apart() -> None:
    one, other = (CorruptedPixels(ArrayPixels(["a", "b"], np.stack([x, PHOTOS[2]]))) for x in PHOTOS[:2])
    ids = [sample_of(picture, condition, 0) for picture in "ab" for condition in ("GN/5", "GN/4", "SN/5")]
    assert len({one.digest(sample) for sample in ids}) == 6
    assert one.digest(ids[0]) != other.digest(ids[0]) and one.digest(ids[3]) == other.digest(ids[3])
    assert one.digest("a|GN/5|r00") == one.digest("a|GN/5|r07")
