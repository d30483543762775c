import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Grid, Volume


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q


grids = st.builds(
    lambda shape, spacing, origin, seed: Grid(shape, spacing, origin, rotation(seed), 2.5),
    st.tuples(*[st.integers(1, 300)] * 3),
    st.tuples(*[st.floats(0.1, 5)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.integers(0, 1000),
)
scales = st.tuples(*[st.integers(1, 5)] * 3)


@given(grids, scales)
def test_refining_keeps_edges_and_extent_of_any_orientation(grid, scale):
    fine = grid.refined(scale)
    assert np.allclose(fine.corner_mm, grid.corner_mm, atol=1e-6)
    assert np.allclose(fine.extent_mm, grid.extent_mm, rtol=0, atol=1e-6)
    far = np.add(grid.corner_mm, grid.direction @ np.array(grid.extent_mm))
    far_fine = np.add(fine.corner_mm, fine.direction @ np.array(fine.extent_mm))
    assert np.allclose(far, far_fine, atol=1e-6)


@given(grids, scales)
def test_coarsening_undoes_refining(grid, scale):
    back = grid.refined(scale).coarsened(scale)
    assert back.shape == grid.shape
    assert np.allclose(back.origin_mm, grid.origin_mm, atol=1e-6)
    assert np.allclose(back.spacing_mm, grid.spacing_mm)
    # slices cut along z forget the overlap of the slabs that they came from
    kept = grid.slice_thickness_mm if scale[0] == 1 else grid.spacing_mm[0]
    assert back.slice_thickness_mm == pytest.approx(None if grid.slice_thickness_mm is None else kept)


def test_origin_moves_by_half_the_change_of_spacing():
    fine = Grid((4, 4, 4), (2.0, 1.0, 1.0), (10.0, 20.0, 30.0)).refined((1, 2, 2))
    assert fine.origin_mm == (9.75, 19.75, 30.0)  # LPS: x and y move, z stays


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan")), (1, 1)])
def test_impossible_spacing_is_refused(spacing):
    with pytest.raises(UhrctError, match="spacing"):
        Volume(np.zeros((1, 2, 2), np.int16), spacing)


def test_sheared_axes_are_refused():
    shear = np.eye(3)
    shear[0, 1] = 0.3
    with pytest.raises(UhrctError, match="orthonormal"):
        Volume(np.zeros((1, 2, 2), np.int16), (1, 1, 1), direction=shear)


def test_a_grid_that_does_not_divide_is_refused():
    with pytest.raises(UhrctError, match="multiple"):
        Grid((1, 5, 4), (1, 1, 1)).coarsened((1, 2, 2))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm"),
        ({"spacing_mm": ("1", 1, 1)}, "spacing_mm"),
        ({"spacing_mm": None}, "spacing_mm"),
        ({"origin_mm": (0.0, float("nan"), 0.0)}, "origin_mm"),
        ({"origin_mm": (0.0, float("inf"), 0.0)}, "origin_mm"),
        ({"slice_thickness_mm": -1.0}, "slice_thickness_mm"),
        ({"slice_thickness_mm": float("nan")}, "slice_thickness_mm"),
        ({"hu": [[[0]]]}, "hu"),
    ],
)
def test_impossible_geometry_names_the_argument(changes, name):
    with pytest.raises(UhrctError, match=f"`{name}` is"):
        Volume(**{"hu": np.zeros((1, 2, 3), np.int16), "spacing_mm": (1.0, 1.0, 1.0)} | changes)


def test_numbers_of_numpy_become_plain_floats():
    volume = Volume(np.zeros((1, 2, 3), np.int16), np.array([1, 0.5, 0.5], np.float32), np.zeros(3))
    assert volume.spacing_mm == (1.0, 0.5, 0.5)
    assert all(type(v) is float for v in (*volume.spacing_mm, *volume.origin_mm))


@pytest.mark.parametrize("meta", [{}, {"format": "DICOM", "dicom": ["Doe^Jane"] * 100}])
def test_a_volume_prints_one_line_without_headers(meta):
    text = repr(Volume(np.zeros((2, 3, 4), np.float32), (2.5, 0.7, 0.7), meta=meta))
    assert text.startswith("Volume(2 x 3 x 4 voxels of 2.5 x 0.7 x 0.7 mm (z, y, x), float32")
    assert text.isprintable()
    assert len(text) < 120
    assert "Doe" not in text
    assert ("from DICOM" in text) == bool(meta)


@pytest.mark.parametrize(
    ("given", "held"),
    [(np.uint8, np.int16), (np.int32, np.int16), (">i2", np.int16), (np.float64, np.float32), (np.float16, np.float32)],
)
def test_other_types_are_held_as_int16_or_float32(given, held):
    volume = Volume(np.full((1, 2, 3), 100, given), (1.0, 1.0, 1.0))
    assert volume.hu.dtype == held
    assert (volume.hu == 100).all()


def test_integers_beyond_16_bits_are_held_as_float32():
    assert Volume(np.full((1, 2, 3), 40000), (1.0, 1.0, 1.0)).hu.dtype == np.float32


@pytest.mark.parametrize("dtype", [bool, complex, object])
def test_voxels_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(InputRefused, match="`hu`: holds values of type"):
        Volume(np.zeros((1, 2, 3), dtype), (1.0, 1.0, 1.0))
