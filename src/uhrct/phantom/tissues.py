"""What fills the chest: HU of air, skin, fat, muscle, bone, heart, belly, table and lung, slice by slice."""

from __future__ import annotations

import numpy as np

from uhrct.phantom.anatomy import Anatomy, Plane
from uhrct.phantom.texture import Texture, TextureOnGrid

AIR, FAT, MUSCLE, SKIN, LIVER, SPLEEN = -1000.0, -102.0, 52.0, 20.0, 62.0, 50.0
CORTEX, MARROW, CARTILAGE, CORD, DISC = 620.0, 190.0, 95.0, 28.0, 75.0
LEVEL_MM = 24.0  # from rib to rib, and from vertebra to vertebra
GRAVITY_HU_PER_MM = 0.42  # lung is denser towards the back of a patient who lies on it


class Tissues:
    """Textures of one chest; `on` gives its slices on a grid.

    Parameters
    ----------
    anatomy : Anatomy
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        draw = anatomy.draw
        self.blood, self.lung = draw["blood_hu"], draw["lung_hu"]
        self.fine = Texture(draw.stream("texture", "fine"), 0.55, 0.7)
        self.middle = Texture(draw.stream("texture", "middle"), 1.3, 1.0)
        self.coarse = Texture(draw.stream("texture", "coarse"), 5.0, 1.3)
        rng = draw.stream("bones")
        self.stomach = (-128 + float(rng.uniform(-6, 6)), -30.0, 62.0)


class TissueSlices:
    """Slices of the tissues on rows `y_mm`, columns `x_mm`, voxels of `spacing_mm`."""

    def __init__(
        self, tissues: Tissues, y_mm: np.ndarray, x_mm: np.ndarray, spacing_mm: tuple[float, float, float]
    ) -> None:
        self.tissues, self.anatomy = tissues, tissues.anatomy
        self.plane = Plane(y_mm[:, None].astype(np.float32), x_mm[None].astype(np.float32))
        self.width = spacing_mm[1]
        self.textures = [
            TextureOnGrid(t, y_mm, x_mm, spacing_mm) for t in (tissues.fine, tissues.middle, tissues.coarse)
        ]

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of the voxel inside a surface: exact for a plane that is parallel to a face."""
        return np.clip(0.5 - distance / self.width, 0, 1)

    def _sheet(self, distance: np.ndarray, half_mm: float | np.ndarray) -> np.ndarray:
        return self.cover(distance - half_mm) - self.cover(distance + half_mm)

    def slice(self, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """HU (y, x) of everything but the trees and nodules, and the distances from the right and left lung."""
        p, a, t = self.plane, self.anatomy, self.tissues
        fine, middle, coarse = (texture.slice(z) for texture in self.textures)
        hu = np.full(np.broadcast_shapes(p.y.shape, p.x.shape), AIR, np.float32)
        self._table(hu)
        body = a.radial("body", p, z)
        mix(hu, self.cover(body), SKIN)
        mix(hu, self.cover(body + 1.8), FAT + 9 * coarse + 7 * middle + 4 * fine)
        # septa of the subcutaneous fat
        mix(hu, self.cover(body + 4) * np.clip(np.abs(coarse + 0.5 * middle) * -12 + 1, 0, 0.6), -20)
        self._muscles(hu, z, middle, coarse)
        self._inside(hu, z, fine, middle, coarse)
        self._bones(hu, z, fine, middle)
        right, left = a.lungs(p, z)
        lung = np.minimum(right, left)
        value = t.lung + GRAVITY_HU_PER_MM * p.y + 13 * coarse + 17 * middle + 24 * fine - 0.12 * (z + 10)
        # the last millimetres under the pleura are less aerated, and the pleura itself is a line
        mix(hu, self.cover(lung), value + 25 * np.exp(lung.clip(-40, 0) / 3))
        self._fissures(hu, z, right, left)
        return hu, right, left

    def _table(self, hu: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        below = p.y - (a.half_depth + 7 - 0.00055 * p.x**2)
        shell = np.maximum(np.abs(below - 9) - 9, np.abs(p.x) - 205)
        mix(hu, self.cover(shell), -340.0)
        mix(hu, self.cover(shell + 2.2), -905.0)
        cushion = np.maximum(np.abs(below + 3.2) - 3.0, np.abs(p.x) - 195)
        mix(hu, self.cover(cushion), -930.0)

    def _muscles(self, hu: np.ndarray, z: float, middle: np.ndarray, coarse: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        muscle = a.radial("muscle", p, z) + 1.2 * coarse + 0.4 * middle
        cage = a.radial("cage", p, z)
        mix(hu, self.cover(muscle), MUSCLE + 5 * coarse + 6 * middle)
        # fat between the layers of muscle, thicker here and thinner there
        gap = cage - muscle
        for share, half in ((0.08, 1.3), (0.5, 1.1)):
            sheet = self._sheet(
                cage - share * np.maximum(gap, 0) - 1.5, np.maximum(half - 0.8 + 1.5 * coarse + 0.3 * middle, 0)
            )
            mix(hu, sheet * self.cover(muscle + 2), -85.0)
        axilla = np.hypot((np.abs(p.x) - 118 * a.size[0]) / 30, (p.y + 5) / 36) - 1
        mix(
            hu,
            self.cover(axilla * 26 + 5 * coarse + max(z - 130, 0))
            * self.cover(3 - cage)
            * min(1.0, max(0.0, (z - 25) / 12)),
            FAT + 14 * middle,
        )
        mix(hu, self.cover(cage), MUSCLE + 3 * middle)
        mix(hu, self._sheet(cage + 2.5 + 1.5 * coarse, np.maximum(0.9 + 1.3 * coarse, 0)), -80.0)

    def _inside(self, hu: np.ndarray, z: float, fine: np.ndarray, middle: np.ndarray, coarse: np.ndarray) -> None:
        """Mediastinum, heart and belly; the lungs are carved out afterwards."""
        p, a, t = self.plane, self.anatomy, self.tissues
        _sx, _sy = a.size
        inner = a.radial("pleura", p, z)
        mix(hu, self.cover(inner + 1.0), FAT + 10 * coarse + 8 * middle)
        streak = np.clip(1 - 9 * np.abs(coarse - 0.3 * middle), 0, 0.35)
        mix(hu, self.cover(inner + 3) * streak, 10.0)
        c, half = a.heart
        # the heart, tilted, with fat in its grooves
        x = p.x - c[2] + 0.25 * (z - c[0]) + 0.2 * (p.y - c[1])
        g = np.sqrt(((z - c[0]) / half[0]) ** 2 + ((p.y - c[1]) / half[1]) ** 2 + (x / half[2]) ** 2)
        heart = (g - 1) * 44 + 1.5 * coarse
        wall = t.blood + 6
        mix(hu, self.cover(heart), wall + 4 * middle)
        mix(hu, self.cover(heart + 9), t.blood - 4 + 4 * middle)
        septum = self._sheet(x + 8 + 0.5 * (p.y - c[1]), 4.0)
        mix(hu, septum * self.cover(heart + 4), wall + 3 * middle)
        groove = np.hypot(x + 22 + 0.3 * (z - c[0]), p.y - c[1] + 25) - 6 - 2 * coarse
        mix(hu, self.cover(groove) * self.cover(heart - 6), FAT + 5 * middle)
        self._belly(hu, z, inner, middle, coarse)

    def _belly(self, hu: np.ndarray, z: float, inner: np.ndarray, middle: np.ndarray, coarse: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        sx, sy = a.size
        right = a._above_floor(p, z, 1, a.dome_mm[0] - 1.5)
        left = a._above_floor(p, z, -1, a.dome_mm[1] - 1.5)
        edge = 34 * sx - 0.35 * (p.y + 20)
        liver = np.maximum(np.maximum(-right, inner + 2), p.x - edge) + 0.8 * coarse
        mix(hu, self.cover(liver), LIVER + 4 * middle + 3 * coarse)
        veins = np.clip(0.6 - 7 * np.abs(coarse + 0.15), 0, 0.6) * self.cover(liver + 8)
        mix(hu, veins, LIVER - 16)
        under = np.maximum(np.maximum(-left, inner + 2), edge + 3 - p.x)
        mix(hu, self.cover(under), FAT + 8 * middle)
        spleen = np.maximum(under, 26 * np.hypot((p.x - 95 * sx) / 30, (p.y - 42 * sy) / 44) - 26) + coarse
        mix(hu, self.cover(spleen), SPLEEN + 4 * middle)
        s = self.tissues.stomach
        g = np.sqrt(((z - s[0]) / 30) ** 2 + ((p.y - s[1] * sy) / 40) ** 2 + ((p.x - s[2] * sx) / 34) ** 2)
        stomach = np.maximum((g - 1) * 34, under + 2)
        mix(hu, self.cover(stomach), 42 + 3 * middle)
        gas = np.maximum(stomach + 4, p.y - s[1] * sy + 8)
        mix(hu, self.cover(gas), -985.0)

    def _bone(self, hu: np.ndarray, d: np.ndarray, shell_mm: float, middle: np.ndarray) -> None:
        mix(hu, self.cover(d), CORTEX)
        mix(hu, self.cover(d + shell_mm), MARROW + 45 * middle)

    def _bones(self, hu: np.ndarray, z: float, fine: np.ndarray, middle: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        sx, _sy = a.size
        # ribs run down from the spine to the front, cartilage takes over there
        u = p.from_back
        run = 62 * (1 - np.cos(np.minimum(u, 2.4))) / 1.74 - 10 * np.clip(u - 2.1, 0, 1)
        level = (z + run - a.rib_phase) / LEVEL_MM
        off = (level - np.rint(level)) * LEVEL_MM
        slope = 62 * np.sin(np.minimum(u, 2.4)) / 1.74 / np.maximum(p.rho, 30)
        off = off / np.sqrt(1 + slope**2)
        depth = a.radial("cage", p, z) + 5.5
        rib = (np.sqrt((off / 6.6) ** 2 + (depth / 3.9) ** 2) - 1) * 4.5
        rib = np.maximum(rib, 14 - np.abs(p.x))
        rib = np.maximum(rib, (np.abs(np.rint(level)) - 6.5) * 20)
        bony = rib + 40 * np.maximum(u - 2.35, 0)
        mix(hu, self.cover(rib), CARTILAGE + 4 * middle)
        self._bone(hu, bony, 1.3, middle)
        # breastbone
        front = -_at_angle(a, z)
        breast = (np.hypot(p.x / (17 + 5 * (z > 50)), (p.y - front - 7) / 6.5) - 1) * 7 + max(0.0, -48 - z) * 2
        if z < 88:
            self._bone(hu, breast, 1.2, middle)
        # shoulder blades
        back = np.abs(u - 0.93) * 90 - (14 + 14 * np.clip((z - 15) / 60, 0, 1))
        blade = np.maximum(np.abs(a.radial("cage", p, z) - 10 - 0.18 * np.abs(p.x) / sx + 14) - 2.2, back)
        if z > 0:
            self._bone(hu, blade + max(0.0, 8 - z), 1.2, middle)
        self._spine(hu, z, middle)

    def _spine(self, hu: np.ndarray, z: float, middle: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        y = p.y - a.spine_y - 4
        x = np.abs(p.x)
        phase = (z - a.rib_phase + 9) % LEVEL_MM  # 0: middle of a disc
        disc = min(phase, LEVEL_MM - phase) < 2.6
        flank = 1 - 0.1 * np.sin(np.pi * phase / LEVEL_MM)
        vertebra = (np.sqrt((x / 18) ** 2 + (y / 14.5) ** 2) - flank) * 15
        vertebra = np.maximum(vertebra, y - 11 + 0.01 * x**2)
        if disc:
            mix(hu, self.cover(vertebra), DISC + 5 * middle)
        else:
            end = min(phase, LEVEL_MM - phase) < 4.0
            self._bone(hu, vertebra, 99.0 if end else 1.4, middle)
        canal = np.hypot(x / 9.5, (y - 20) / 8.5) - 1
        arch = np.abs(canal * 9 - 3.5) - 3.0
        if 5 < phase < 17:
            self._bone(hu, np.maximum(arch, -canal * 9), 1.3, middle)
            across = np.maximum(np.abs(y - 23 - 0.12 * x) - 4.0, np.abs(x - 20) - 13)
            self._bone(hu, across, 1.2, middle)
            mix(hu, self.cover(np.hypot(x - 13, y - 16) - 3.2), CORTEX * 0.7)
        spinous = np.maximum(x - 2.8, np.abs(y - 36 - 0.3 * (phase - 12)) - 10)
        self._bone(hu, spinous, 1.0, middle)
        mix(hu, self.cover(canal * 9), -30.0)
        mix(hu, self.cover(np.hypot(x / 6.0, (y - 20) / 5.2) * 5.5 - 5.5), CORD + 3 * middle)

    def _fissures(self, hu: np.ndarray, z: float, right: np.ndarray, left: np.ndarray) -> None:
        ro, minor, lo = self.anatomy.fissures(self.plane, z)
        inside_right, inside_left = self.cover(right + 0.5), self.cover(left + 0.5)
        mix(hu, self._sheet(ro, 0.2) * inside_right, -350.0)
        mix(hu, self._sheet(lo, 0.2) * inside_left, -350.0)
        mix(hu, self._sheet(minor, 0.2) * inside_right * (ro > 0), -350.0)


def mix(hu: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    """Lay a tissue of this HU over what is there, where it fills `share` of the voxel."""
    where = share > 0
    if not where.any():
        return
    where = np.broadcast_to(where, hu.shape)
    rows = np.flatnonzero(where.any(1))
    part = slice(rows[0], rows[-1] + 1)
    share = np.broadcast_to(share, hu.shape)[part]
    if isinstance(value, np.ndarray):
        value = np.broadcast_to(value, hu.shape)[part]
    hu[part] += share * (value - hu[part])


def _at_angle(anatomy: Anatomy, z: float) -> float:
    """Radius of the cage in front, mm."""
    from uhrct.phantom.anatomy import BINS, _row

    return float(_row(anatomy.cage, z, np.array([BINS * 3 // 4]))[0])
