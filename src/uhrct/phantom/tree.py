"""A tree of vessels or airways as capsules, with calibres by Murray's law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes in mm. Node i > 0 is the end of a capsule of `radius_mm[i]` that starts at its parent.

    Attributes
    ----------
    kind : artery, vein or airway (the radius of an airway is that of its lumen)
    position_mm : (n, 3), z y x
    parent : (n,), -1 for the root; parents come before their children
    radius_mm : (n,), by Murray's law from the tips
    lobe : (n,), 0 on the way to a lobe, else a key of `LOBES`
    tip_mm : (n,), radius of each node if it is, or becomes by a cut, a tip: the smallest of the tips beyond it
    """

    kind: str
    position_mm: np.ndarray
    parent: np.ndarray
    radius_mm: np.ndarray
    lobe: np.ndarray
    tip_mm: np.ndarray

    @property
    def wall_mm(self) -> np.ndarray:
        """Thickness of the wall. Only airways have one; the calibre of a vessel includes its wall."""
        return 0.1 + 0.13 * self.radius_mm if self.kind == "airway" else np.zeros_like(self.radius_mm)

    @property
    def outer_mm(self) -> np.ndarray:
        return self.radius_mm + self.wall_mm

    @property
    def children(self) -> np.ndarray:
        """Number of children of each node."""
        return np.bincount(self.parent[1:], minlength=len(self.parent))

    @property
    def generation(self) -> np.ndarray:
        """Number of branchings between root and node."""
        forks = self.children > 1
        out = np.zeros(len(self.parent), int)
        for i in range(1, len(out)):
            p = self.parent[i]
            out[i] = out[p] + forks[p]
        return out

    @property
    def branch(self) -> np.ndarray:
        """Branch number of each node. Nodes between two branchings share it; the root has 0."""
        forks = self.children > 1
        out, count = np.zeros(len(self.parent), int), 0
        for i in range(1, len(out)):
            p = self.parent[i]
            if forks[p]:
                count += 1
                out[i] = count
            else:
                out[i] = out[p]
        return out

    def kept(self, keep: np.ndarray) -> Tree:
        """The tree without the nodes that are not kept and everything beyond them, with new calibres."""
        keep = keep.copy()
        for i in range(1, len(keep)):
            keep[i] &= keep[self.parent[i]]
        number = np.cumsum(keep) - 1
        parent = np.where(self.parent[keep] < 0, -1, number[self.parent[keep]])
        tip_mm = self.tip_mm[keep]
        return Tree(self.kind, self.position_mm[keep], parent, murray(parent, tip_mm), self.lobe[keep], tip_mm)


def murray(parent: np.ndarray, tip_mm: np.ndarray) -> np.ndarray:
    """Radii (mm) of a tree with tips of radius `tip_mm` (n,): at each branching r^3 is the sum of the children's r^3.

    References
    ----------
    Murray, "The physiological principle of minimum work", PNAS 1926, doi 10.1073/pnas.12.3.207.

    Example
    -------
    >>> murray(np.array([-1, 0, 0, 0]), np.full(4, 0.5)).round(3).tolist()
    [0.721, 0.5, 0.5, 0.5]
    """
    cube = np.where(np.bincount(parent[1:], minlength=len(parent)) == 0, tip_mm**3, 0.0)
    for i in range(len(parent) - 1, 0, -1):
        cube[parent[i]] += cube[i]
    return np.cbrt(cube)
