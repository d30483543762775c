"""Trees that grow towards points: space colonisation."""

from __future__ import annotations

import numpy as np


def colonise(
    start_mm: np.ndarray, attractors_mm: np.ndarray, *, step_mm: float, kill_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """A tree that grows from a start point to within `kill_mm` of every attractor.

    In each round, every node that is nearest to some attractors grows a child of length `step_mm` in the mean direction
    to them. Attractors that are reached are removed.

    Parameters
    ----------
    start_mm : (3,);  attractors_mm : (n, 3)

    Returns
    -------
    position_mm (m, 3) and parent (m,); node 0 is the start with parent -1; parents come before their children

    References
    ----------
    Runions, Lane, Prusinkiewicz, "Modeling trees with a space colonization algorithm", 2007,
    doi 10.2312/NPH/NPH07/063-070.
    """
    from scipy.spatial import cKDTree

    position, parent = [np.asarray(start_mm, float)[None]], [np.array([-1])]
    total = 1
    # For each attractor: its nearest node, and the distance to it.
    nearest = np.zeros(len(attractors_mm), int)
    gap = np.linalg.norm(attractors_mm - start_mm, axis=1)
    active = np.flatnonzero(gap > kill_mm)
    everything = position[0]
    for _ in range(4000):
        if not len(active):
            break
        pulled, which = np.unique(nearest[active], return_inverse=True)
        unit = (attractors_mm[active] - everything[nearest[active]]) / gap[active, None]
        pull = np.zeros((len(pulled), 3))
        np.add.at(pull, which, unit)
        strength = np.linalg.norm(pull, axis=1)
        # Attractors on opposite sides cancel: grow to one of them, otherwise the node never moves.
        balanced = strength < 0.2
        if balanced.any():
            _, first = np.unique(which, return_index=True)
            pull[balanced] = unit[first[balanced]]
            strength = np.linalg.norm(pull, axis=1)
        new = everything[pulled] + step_mm * pull / strength[:, None]
        # A new node on an older one changes nothing and would come again in every round.
        fresh = cKDTree(everything).query(new)[0] > 0.4 * step_mm
        stuck = np.isin(nearest[active], pulled[~fresh])
        active = active[~stuck]
        new, pulled = new[fresh], pulled[fresh]
        if not len(new):
            continue
        position.append(new)
        parent.append(pulled)
        everything = np.concatenate([everything, new])
        distance, index = cKDTree(new).query(attractors_mm[active])
        closer = distance < gap[active]
        gap[active[closer]] = distance[closer]
        nearest[active[closer]] = total + index[closer]
        total += len(new)
        active = active[gap[active] > kill_mm]
    return everything, np.concatenate(parent)
