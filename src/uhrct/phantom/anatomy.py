"""Body, lungs, lobes, heart and bones as signed distances in mm, defined at every point of space.

Coordinates are (z, y, x) in mm from the middle of the chest: z to the head, y to the back, x to the patient's left. A
distance is negative inside. Star-shaped surfaces are tables over angle and height; the medial sides of the lungs are
tables over y and z. So a slice takes a few array operations per surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uhrct.phantom.families import Draw

BINS = 4096  # angles of a star-shaped surface: 0.26 mm apart at the skin
Z_STEP_MM = 2.0
Z_MM = np.arange(-260.0, 261.0, Z_STEP_MM)  # rows of the tables
Y_MM = np.arange(-220.0, 221.0)
LOBES = {1: "right upper", 2: "right middle", 3: "right lower", 4: "left upper", 5: "left lower"}
BACK = np.pi / 2  # angle of the spine


@dataclass(frozen=True)
class Plane:
    """Points (y, x) of a slice. Values that do not depend on z are computed once."""

    y: np.ndarray
    x: np.ndarray

    @cached_property
    def rho(self) -> np.ndarray:
        return np.hypot(self.y, self.x)

    @cached_property
    def bin(self) -> np.ndarray:
        turn = np.arctan2(self.y, self.x) / (2 * np.pi)
        return np.rint(turn * BINS).astype(np.int64) % BINS

    @cached_property
    def from_back(self) -> np.ndarray:
        """Angle from the spine, 0 to pi."""
        return np.abs(np.arctan2(self.x, self.y))


def smooth_max(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """Intersection of two bodies, with an edge rounded over `round_mm`."""
    edge = a - b
    np.abs(edge, out=edge)
    np.subtract(round_mm, edge, out=edge)
    np.maximum(edge, 0, out=edge)
    edge *= edge
    edge *= 1 / (4 * round_mm)
    edge += np.maximum(a, b)
    return edge


class Anatomy:
    """The surfaces of one chest.

    Parameters
    ----------
    draw : Draw

    Example
    -------
    >>> chest = Anatomy(Draw("train", 0))
    >>> right, left = chest.lungs(Plane(np.zeros(1), np.array([-70.0])), 0.0)
    >>> bool(right[0] < 0), bool(left[0] < 0)
    (True, False)
    """

    def __init__(self, draw: Draw) -> None:
        rng = draw.stream("anatomy")
        self.draw = draw
        self.half_width, self.half_depth = draw["half_width_mm"], draw["half_depth_mm"]
        self.size = self.half_width / 165, self.half_depth / 110  # relative to the chest of the numbers below
        self.heart_scale = draw["heart"]
        self.top_mm = float(rng.uniform(118, 130))
        self.dome_mm = float(rng.uniform(-88, -76)), float(rng.uniform(-102, -92))  # right, left
        self.oblique_mm = float(rng.uniform(-20, -8)), float(rng.uniform(-20, -8))
        self.minor_mm = float(rng.uniform(-12, 2))
        self.rib_phase = float(rng.uniform(0, 24))
        self.spine_y = 0.46 * self.half_depth
        self._tables(rng)

    def _tables(self, rng: np.random.Generator) -> None:
        theta = np.arange(BINS) * (2 * np.pi / BINS)
        z = Z_MM[:, None]
        sx, sy = self.size
        back, front, side = np.maximum(np.sin(theta), 0), np.maximum(-np.sin(theta), 0), np.abs(np.cos(theta))
        shoulder = 1 / (1 + np.exp(-(z - 95) / 14))
        width = self.half_width * (1 - 0.02 * z / 100 + 0.14 * shoulder)
        depth = self.half_depth * (1 - 0.16 * shoulder + 0.03 * np.cos((z + 60) / 70))
        body = _superellipse(theta, width, depth, 2.35)
        body += 7 * _bump(theta, -BACK - 0.75, 0.38) * np.exp(-(((z + 5) / 55) ** 2))
        body += 7 * _bump(theta, -BACK + 0.75, 0.38) * np.exp(-(((z + 5) / 55) ** 2))
        body -= 5 * _bump(theta, BACK, 0.13)
        self.body = (body + _harmonics(rng, theta, z, 1.6)).astype(np.float32)
        fat = self.draw["fat_mm"] * (0.62 + 0.45 * front * side * 2 + 0.35 * side**4 - 0.002 * z)
        fat += 0.8 * self.draw["fat_mm"] * _bump(theta, -BACK - 0.75, 0.4) * np.exp(-(((z + 15) / 50) ** 2))
        fat += 0.8 * self.draw["fat_mm"] * _bump(theta, -BACK + 0.75, 0.4) * np.exp(-(((z + 15) / 50) ** 2))
        self.muscle = (self.body - np.maximum(fat + _harmonics(rng, theta, z, 1.5), 4)).astype(np.float32)
        taper = np.interp(Z_MM, [-260, -60, 0, 60, 100, 125, 150, 260], [1, 1, 0.97, 0.87, 0.71, 0.54, 0.42, 0.4])
        flat = 1 - 0.07 * back * side
        lateral = 139 * sx * taper[:, None]
        frontal = 90 * sy * (0.35 + 0.65 * taper[:, None]) * np.where(np.sin(theta) < 0, 0.98, 1.1)
        cage = _superellipse(theta, lateral, frontal, 2.3) * flat + _harmonics(rng, theta, z, 1.3)
        self.cage = np.minimum(cage, self.muscle - 5).astype(np.float32)
        self.pleura = (self.cage - 11 - 1.5 * back).astype(np.float32)
        self.slant = {}  # cosine between radius and normal: turns a radial gap into a distance
        for name in ("body", "muscle", "cage", "pleura"):
            r = getattr(self, name)
            turn = (np.roll(r, -4, 1) - np.roll(r, 4, 1)) / (8 * 2 * np.pi / BINS)
            self.slant[name] = (r / np.hypot(r, turn)).astype(np.float32)
        self.medial_right, self.medial_left = self._medial()

    def _medial(self) -> tuple[np.ndarray, np.ndarray]:
        """Half-widths (z, y) of the region between the lungs, to the right and to the left."""
        z, y = Z_MM[:, None], Y_MM[None]
        sx, sy = self.size

        def round_(centre_y: float, half_y: float, half_x: np.ndarray | float) -> np.ndarray:
            return half_x * np.sqrt(np.maximum(1 - ((y - centre_y) / half_y) ** 2, 0))

        spine = np.where(y > self.spine_y + 4, 25 * sx, round_(self.spine_y + 4, 27, 25 * sx))
        upper = np.interp(Z_MM, [-260, -20, 25, 60, 100, 260], [16, 22, 33, 31, 25, 24])[:, None] * sx
        middle = round_(-3 * sy, 46 * sy, upper)
        hila = 12 * np.exp(-(((z - 2) / 26) ** 2) - ((y - 2) / 20) ** 2)
        heart = self._heart_reach(y, z)
        arch = 11 * np.exp(-(((z - 52) / 13) ** 2)) * np.exp(-((y / 30) ** 2))
        aorta = np.where(z < 55, 19 * sx + round_(0.28 * self.half_depth, 15, 15), 0) * (
            np.abs(y - 0.28 * self.half_depth) < 15
        )
        least = 4 + 3 * np.exp(-(((z - 60) / 60) ** 2)) + 0 * y
        right, left = least, least
        for reach in (spine, middle + hila, heart[0]):
            right = np.maximum(right, reach)
        for reach in (spine, middle + hila + arch, heart[1], aorta):
            left = np.maximum(left, reach)
        return _smooth_table(right, 4.0), _smooth_table(left, 4.0)

    @property
    def heart(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Centre and half axes (z, y, x) of the heart without its fat, mm."""
        sx, sy = self.size
        k = self.heart_scale
        return (-46.0, -22 * sy, 19 * sx), (48 * k, 44 * k * sy, 54 * k * sx)

    def _heart_reach(self, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, muscle = self.heart
        a = [half + 5 for half in muscle]  # epicardial fat
        # The long axis points down, forward and to the left.
        inside = 1 - ((z - c[0]) / a[0]) ** 2 - ((y - c[1]) / a[1]) ** 2
        reach = a[2] * np.sqrt(np.maximum(inside, 0))
        shift = -0.25 * (z - c[0]) - 0.2 * (y - c[1])
        hit = inside > 0
        return np.where(hit, reach - c[2] - shift, 0), np.where(hit, reach + c[2] + shift, 0)

    def radial(self, name: str, plane: Plane, z: float | np.ndarray) -> np.ndarray:
        """Signed distance (mm) from the star-shaped surface `name`: body, muscle, cage or pleura."""
        radius = table_row(getattr(self, name), z, plane.bin)
        return (plane.rho - radius) * table_row(self.slant[name], z, plane.bin)

    def lungs(self, plane: Plane, z: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances (mm) from the right and the left lung."""
        wall = self.radial("pleura", plane, z)
        sides = []
        for table, sign, dome in ((self.medial_right, 1, self.dome_mm[0]), (self.medial_left, -1, self.dome_mm[1])):
            width, slope = _bilinear(table, z, plane.y)
            medial = (sign * plane.x + width) / np.sqrt(1 + slope**2)
            d = smooth_max(wall, medial, 7.0)
            d = smooth_max(d, self._above_floor(plane, z, sign, dome), 4.0)
            sides.append(smooth_max(d, self._below_roof(plane, z, sign), 10.0))
        return sides[0], sides[1]

    def _above_floor(self, plane: Plane, z: float | np.ndarray, sign: int, dome: float) -> np.ndarray:
        sx, sy = self.size
        u, v = (plane.x + sign * 62 * sx) / (66 * sx), (plane.y + 14 * sy) / (72 * sy)
        fall, g = 26.0, u**2 + v**2
        floor = dome - fall * (g + 0.25 * g**2)
        return (floor - z) / np.sqrt(1 + (fall * (1 + 0.5 * g) * 2 / 68) ** 2 * g)

    def _below_roof(self, plane: Plane, z: float | np.ndarray, sign: int) -> np.ndarray:
        sx, sy = self.size
        u, v = (plane.x + sign * 46 * sx) / (40 * sx), (plane.y - 14 * sy) / (46 * sy)
        g = u**2 + v**2
        return (z - (self.top_mm - 20 * g)) / np.sqrt(1 + (40 / 43) ** 2 * g)

    def fissures(self, plane: Plane, z: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed distances (mm, positive above) from the right oblique, the minor and the left oblique fissure."""
        sx, sy = self.size
        out = []
        for i, sign in enumerate((-1, 1)):
            bulge = 6 * np.cos((plane.x - sign * 75 * sx) / 38) + 4 * np.sin(plane.y / 27 + i)
            out.append((z - (self.oblique_mm[i] + 0.85 / sy * plane.y + bulge)) / 1.33)
        minor = (z - (self.minor_mm + 0.06 * plane.y + 5 * np.cos((plane.x + 80) / 40))) / 1.02
        return out[0], minor, out[1]

    @staticmethod
    def lobe_of(right: np.ndarray, left: np.ndarray, ro: np.ndarray, minor: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """Lobe (0 outside the lungs, else a key of `LOBES`) from the distances to the lungs and to the `fissures`."""
        in_right = np.where(ro < 0, 3, np.where(minor > 0, 1, 2))
        in_left = np.where(lo < 0, 5, 4)
        return np.where(right < 0, in_right, np.where(left < 0, in_left, 0)).astype(np.uint8)

    def at_points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lung distance (mm, negative inside) and lobe of points (n, 3) in mm."""
        plane, z = Plane(points[:, 1], points[:, 2]), points[:, 0]
        right, left = self.lungs(plane, z)
        return np.minimum(right, left), self.lobe_of(right, left, *self.fissures(plane, z))


def _superellipse(theta: np.ndarray, width: np.ndarray, depth: np.ndarray, power: float) -> np.ndarray:
    return (np.abs(np.cos(theta) / width) ** power + np.abs(np.sin(theta) / depth) ** power) ** (-1 / power)


def _bump(theta: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.exp(-(((theta - at + np.pi) % (2 * np.pi) - np.pi) ** 2) / (2 * width**2))


def _harmonics(rng: np.random.Generator, theta: np.ndarray, z: np.ndarray, size_mm: float) -> np.ndarray:
    total = np.zeros((len(z), len(theta)))
    for m in range(2, 9):
        a, phase, wave, turn = rng.normal(0, size_mm / m**0.5), *rng.uniform(0, 2 * np.pi, 1), *rng.uniform(30, 90, 2)
        total += a * np.cos(m * theta + phase + np.sin(z / turn)) * np.cos(z / wave)
    return total


def _smooth_table(table: np.ndarray, sigma: float) -> np.ndarray:
    from uhrct.physics.resampling import gaussian_matrix

    rows = gaussian_matrix(len(table), sigma / Z_STEP_MM)
    columns = gaussian_matrix(table.shape[1], sigma)
    return (rows @ table @ columns.T).astype(np.float32)


def table_row(table: np.ndarray, z: float | np.ndarray, column: np.ndarray) -> np.ndarray:
    """Values of a table at heights `z` and given column indices, linear between rows."""
    position = np.clip((np.asarray(z) - Z_MM[0]) / Z_STEP_MM, 0, len(Z_MM) - 1.001)
    if position.ndim == 0:
        k, t = int(position), float(position) % 1
        return ((1 - t) * table[k] + t * table[k + 1])[column]
    k = position.astype(int)
    t = position - k
    return (1 - t) * table[k, column] + t * table[k + 1, column]


def _bilinear(table: np.ndarray, z: float | np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(value, slope along y) of a (z, y) table."""
    position = np.clip(y - Y_MM[0], 0, len(Y_MM) - 1.001)
    j = position.astype(int)
    t = position - j
    a, b = table_row(table, z, j), table_row(table, z, j + 1)
    return (1 - t) * a + t * b, b - a
