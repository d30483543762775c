"""Nodules: solid, part-solid and ground-glass; free, on a vessel, on the pleura."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.phantom.anatomy import Anatomy
from uhrct.phantom.tree import Tree

KINDS = ("solid", "part-solid", "ground-glass")
ATTACHMENTS = ("free", "juxta-vascular", "juxta-pleural")
HU = {"solid": 30.0, "part-solid": -620.0, "ground-glass": -640.0}
CORE_HU, CORE_SHARE = 10.0, 0.5  # core of a part-solid nodule: its HU and its share of the diameter
THICK_MM = 0.8  # smaller vessels are ignored when a nodule is free of vessels or attached to one


@dataclass(frozen=True, eq=False)
class Nodule:
    """A bumpy ball: surface at ``diameter/2 * (1 + sum a cos(w . u + p))`` in direction u.

    Attributes
    ----------
    centre_mm : (z, y, x);  diameter_mm : float
    kind, attachment, lobe
    waves : (k, 5), amplitude, frequency (3), phase of each bump
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    kind: str
    attachment: str
    lobe: int
    waves: np.ndarray

    def distance(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Signed distance (mm, negative inside), to first order in the bumps."""
        dz, dy, dx = z - self.centre_mm[0], y - self.centre_mm[1], x - self.centre_mm[2]
        r = np.sqrt(dz**2 + dy**2 + dx**2)
        safe = np.maximum(r, 1e-6)
        bumps = np.zeros_like(r)
        for a, wz, wy, wx, phase in self.waves:
            bumps += a * np.cos((wz * dz + wy * dy + wx * dx) / safe + phase)
        return r - self.diameter_mm / 2 * (1 + bumps)


def place_nodules(anatomy: Anatomy, trees: dict[str, Tree], count: int = 9) -> list[Nodule]:
    """Up to `count` nodules, first every kind with every attachment. There are fewer only if the lungs have no room.

    Free: at least 1.5 mm away from the pleura and from vessels with a radius of `THICK_MM` and more. Juxta-vascular:
    the surface of such a vessel passes through the outer half of the nodule. Juxta-pleural: the pleura does.
    """
    from scipy.spatial import cKDTree

    rng = anatomy.draw.stream("nodules")
    points, thick = [], []
    for kind in ("artery", "vein"):
        t = trees[kind]
        some = np.flatnonzero((t.radius_mm >= THICK_MM) & (t.lobe > 0))
        points.append(np.linspace(t.position_mm[t.parent[some]], t.position_mm[some], 4).reshape(-1, 3))
        thick.append(np.tile(t.radius_mm[some], 4))
    vessel, calibre = np.concatenate(points), np.concatenate(thick)
    lookup = cKDTree(vessel) if len(vessel) else None
    candidates = rng.uniform((-150, -110, -160), (130, 115, 160), (40_000, 3))
    # The great vessels would hide a nodule beside them.
    candidates = candidates[np.abs(candidates[:, 2]) > 50 * anatomy.size[0]]
    depth, lobe = anatomy.at_points(candidates)
    candidates, depth, lobe = candidates[lobe > 0], depth[lobe > 0], lobe[lobe > 0]
    out: list[Nodule] = []
    for k in range(count):
        kind, attachment = KINDS[k % 3], ATTACHMENTS[(k // 3 + k) % 3]
        diameter = float(np.exp(rng.uniform(np.log(4.5), np.log(18))))
        r = diameter / 2
        order = rng.permutation(len(candidates))[:4000]
        gap = np.full(len(order), np.inf)
        if lookup is not None:
            near, which = lookup.query(candidates[order], k=8)
            which = np.minimum(which, len(vessel) - 1)
            gap = (near - calibre[which]).min(1)
        d = -depth[order]
        if attachment == "free":
            good = (d > r + 2) & (gap > 1.2 * r + 1.5)
        elif attachment == "juxta-vascular":
            good = (d > r + 1) & (gap > 0.55 * r) & (gap < 0.75 * r)
        else:
            good = (d > 0.55 * r) & (d < 0.75 * r)
        for other in out:
            far = np.linalg.norm(candidates[order] - np.array(other.centre_mm), axis=1)
            good &= far > r + other.diameter_mm / 2 + 4
        if not good.any():
            continue
        at = order[np.argmax(good)]
        waves = np.concatenate(
            [rng.uniform(0.01, 0.05, (5, 1)), rng.normal(0, 2.2, (5, 3)), rng.uniform(0, 6.28, (5, 1))], axis=1
        )
        z, y, x = candidates[at].tolist()
        out.append(Nodule((z, y, x), diameter, kind, attachment, int(lobe[at]), waves))
    return out
