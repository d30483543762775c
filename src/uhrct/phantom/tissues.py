"""HU of air, skin, fat, muscle, bone, heart, belly, table and lung, slice by slice."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from uhrct.phantom.anatomy import BINS, Anatomy, Plane, table_row
from uhrct.phantom.texture import Texture, TextureOnGrid

AIR, FAT, MUSCLE, SKIN, LIVER, SPLEEN = -1000.0, -102.0, 52.0, 20.0, 62.0, 50.0
CORTEX, MARROW, CARTILAGE, CORD, DISC = 620.0, 190.0, 95.0, 28.0, 75.0
FAR_MM = 1000.0  # distance from the lungs where it is not computed
LEVEL_MM = 24.0  # from rib to rib, and from vertebra to vertebra
GRAVITY_HU_PER_MM = 0.42  # lung is denser towards the back of a patient in supine position


class Tissues:
    """Textures and HU of one chest.

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
        a = tissues.anatomy
        self.width = spacing_mm[1]
        self.shape = len(y_mm), len(x_mm)
        y_mm, x_mm = y_mm.astype(np.float32), x_mm.astype(np.float32)
        self.whole = Plane(y_mm[:, None], x_mm[None])
        # Tissues of the body are computed in the box of the body alone, those of the spine in the box of the spine.
        reach = float(a.body.max()) + 4 * max(spacing_mm)
        theta = np.arange(BINS) * (2 * np.pi / BINS)
        high = float((a.body * np.abs(np.sin(theta))).max()) + 4 * max(spacing_mm)
        self.box = _between(y_mm, -high, high), _between(x_mm, -reach, reach)
        y_mm, x_mm = y_mm[self.box[0]], x_mm[self.box[1]]
        self.plane = p = Plane(y_mm[:, None], x_mm[None])
        middle, margin = a.spine_y + 4, 4 * max(spacing_mm)
        self.spine_box = (
            _between(y_mm, middle - 20 - margin, middle + 52 + margin),
            _between(x_mm, -36 - margin, 36 + margin),
        )
        self.textures = [
            TextureOnGrid(t, y_mm, x_mm, spacing_mm) for t in (tissues.fine, tissues.middle, tissues.coarse)
        ]
        # Ribs descend from the spine to the front: by how much, and how steeply.
        u = p.from_back
        self.rib_run = 62 * (1 - np.cos(np.minimum(u, 2.4))) / 1.74 - 10 * np.clip(u - 2.1, 0, 1)
        self.rib_slant = np.sqrt(1 + (62 * np.sin(np.minimum(u, 2.4)) / 1.74 / np.maximum(p.rho, 30)) ** 2)

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of the voxel inside a surface. It is exact for a plane parallel to a face."""
        share = distance * np.float32(-1 / self.width)
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def _sheet(self, distance: np.ndarray, half_mm: float | np.ndarray) -> np.ndarray:
        share = self.cover(distance - half_mm)
        share -= self.cover(distance + half_mm)
        return share

    @cached_property
    def _surroundings(self) -> np.ndarray:
        """Air and table, the same in every slice."""
        hu = np.full(self.shape, AIR, np.float32)
        self._table(hu)
        return hu

    def slice(self, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(HU (y, x) of everything but trees and nodules, distance from the nearer lung in mm, lobes)."""
        whole = self._surroundings.copy()
        distance = np.full(self.shape, FAR_MM, np.float32)
        lobes = np.zeros(self.shape, np.uint8)
        if self.plane.rho.size:
            self._body(whole[self.box], z, distance[self.box], lobes[self.box])
        return whole, distance, lobes

    def _body(self, hu: np.ndarray, z: float, distance: np.ndarray, lobes: np.ndarray) -> None:
        p, a, t = self.plane, self.anatomy, self.tissues
        fine, middle, coarse = (texture.slice(z) for texture in self.textures)
        body = a.radial("body", p, z)
        mix(hu, self.cover(body), SKIN)
        mix(hu, self.cover(body + 1.8), FAT + 9 * coarse + 7 * middle + 4 * fine)
        # Septa of the subcutaneous fat.
        mix(hu, self.cover(body + 4) * np.clip(np.abs(coarse + 0.5 * middle) * -12 + 1, 0, 0.6), -20)
        self._muscles(hu, z, middle, coarse)
        self._inside(hu, z, middle, coarse)
        self._bones(hu, z, middle)
        right, left = a.lungs(p, z)
        np.minimum(right, left, out=distance)
        value = t.lung + GRAVITY_HU_PER_MM * p.y + 13 * coarse + 17 * middle + 24 * fine - 0.12 * (z + 10)
        # Lung holds less air in the last millimetres below the pleura.
        mix(hu, self.cover(distance), value + 25 * np.exp(distance.clip(-40, 0) / 3))
        fissures = a.fissures(p, z)
        self._fissures(hu, fissures, right, left)
        lobes[:] = a.lobe_of(right, left, *fissures)

    def _table(self, hu: np.ndarray) -> None:
        p, a = self.whole, self.anatomy
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
        # Fat of varying thickness between the layers of muscle.
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

    def _inside(self, hu: np.ndarray, z: float, middle: np.ndarray, coarse: np.ndarray) -> None:
        """Mediastinum, heart and belly. The lungs are drawn over them afterwards."""
        p, a = self.plane, self.anatomy
        inner = a.radial("pleura", p, z)
        mix(hu, self.cover(inner + 1.0), FAT + 10 * coarse + 8 * middle)
        streak = np.clip(1 - 9 * np.abs(coarse - 0.3 * middle), 0, 0.35)
        mix(hu, self.cover(inner + 3) * streak, 10.0)
        # Skip organs that this slice does not reach.
        c, half = a.heart
        if (abs(z - c[0]) / half[0] - 1) * 44 < 14 + self.width:
            self._heart(hu, z, middle, coarse)
        if z < max(a.dome_mm) + 16 + self.width:
            self._belly(hu, z, inner, middle, coarse)

    def _heart(self, hu: np.ndarray, z: float, middle: np.ndarray, coarse: np.ndarray) -> None:
        p, a, t = self.plane, self.anatomy, self.tissues
        c, half = a.heart
        # The heart is tilted, with fat in its grooves.
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

    def _bones(self, hu: np.ndarray, z: float, middle: np.ndarray) -> None:
        p, a = self.plane, self.anatomy
        sx, _sy = a.size
        u = p.from_back
        level = (z + self.rib_run - a.rib_phase) / LEVEL_MM
        rib_number = np.rint(level)
        off = (level - rib_number) * LEVEL_MM / self.rib_slant
        cage = a.radial("cage", p, z)
        depth = cage + 5.5
        rib = (np.sqrt((off / 6.6) ** 2 + (depth / 3.9) ** 2) - 1) * 4.5
        rib = np.maximum(rib, 14 - np.abs(p.x))
        rib = np.maximum(rib, (np.abs(rib_number) - 6.5) * 20)
        bony = rib + 40 * np.maximum(u - 2.35, 0)
        mix(hu, self.cover(rib), CARTILAGE + 4 * middle)
        self._bone(hu, bony, 1.3, middle)
        # Breastbone; cartilage joins it to the ribs.
        front = -_cage_in_front(a, z)
        breast = (np.hypot(p.x / (17 + 5 * (z > 50)), (p.y - front - 7) / 6.5) - 1) * 7 + max(0.0, -48 - z) * 2
        if z < 88:
            self._bone(hu, breast, 1.2, middle)
        # Shoulder blades.
        back = np.abs(u - 0.93) * 90 - (14 + 14 * np.clip((z - 15) / 60, 0, 1))
        blade = np.maximum(np.abs(cage - 10 - 0.18 * np.abs(p.x) / sx + 14) - 2.2, back)
        if z > 0:
            self._bone(hu, blade + max(0.0, 8 - z), 1.2, middle)
        self._spine(hu[self.spine_box], z, middle[self.spine_box])

    def _spine(self, hu: np.ndarray, z: float, middle: np.ndarray) -> None:
        a, (rows, columns) = self.anatomy, self.spine_box
        y = self.plane.y[rows] - a.spine_y - 4
        x = np.abs(self.plane.x[:, columns])
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

    def _fissures(self, hu: np.ndarray, fissures: tuple[np.ndarray, ...], right: np.ndarray, left: np.ndarray) -> None:
        ro, minor, lo = fissures
        inside_right, inside_left = self.cover(right + 0.5), self.cover(left + 0.5)
        mix(hu, self._sheet(ro, 0.2) * inside_right, -350.0)
        mix(hu, self._sheet(lo, 0.2) * inside_left, -350.0)
        mix(hu, self._sheet(minor, 0.2) * inside_right * (ro > 0), -350.0)


def mix(hu: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    """Draw a tissue with this HU over `hu`, where it fills `share` of the voxel."""
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


def _between(line_mm: np.ndarray, low_mm: float, high_mm: float) -> slice:
    first, last = np.searchsorted(line_mm, (low_mm, high_mm))
    return slice(int(first), int(last))


def _cage_in_front(anatomy: Anatomy, z: float) -> float:
    """Radius of the ribcage in front, mm."""
    return float(table_row(anatomy.cage, z, np.array([BINS * 3 // 4]))[0])
