"""The truth of a phantom: trees, nodules and masks, and the files that store them beside the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.phantom.anatomy import LOBES
from uhrct.phantom.families import RANGES
from uhrct.phantom.scene import Scene, View
from uhrct.phantom.tree import Tree

#: Masks beside the image, and the meaning of their labels.
MASKS: dict[str, dict[int, str]] = {
    "lungs": {1: "right lung", 2: "left lung"},
    "lobes": dict(LOBES),
    "vessels": {1: "artery", 2: "vein"},
    "airways": {1: "airway"},
    "nodules": {},
}


def tree_arrays(tree: Tree) -> dict[str, np.ndarray]:
    """A tree as flat arrays, named `kind_...`: see docs/phantom.md."""
    arrays: dict[str, np.ndarray] = {
        "position_mm": tree.position_mm.astype(np.float64),
        "parent": tree.parent.astype(np.int32),
        "radius_mm": tree.radius_mm.astype(np.float64),
        "branch": tree.branch.astype(np.int32),
        "generation": tree.generation.astype(np.int16),
        "lobe": tree.lobe.astype(np.uint8),
    }
    return {f"{tree.kind}_{name}": array for name, array in arrays.items()}


def betti_of_mask(mask: np.ndarray) -> list[int]:
    """b0, b1, b2 of a mask (26-connected), computed on its bounding box."""
    from uhrct.structure.topology import betti_numbers

    if not mask.any():
        return [0, 0, 0]
    box = []
    for axis in range(3):
        some = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(some[0], some[-1] + 1))
    return [int(b) for b in betti_numbers(mask[tuple(box)])]


def describe(scene: Scene, view: View, masks: dict[str, np.ndarray], imaging: dict[str, Any]) -> dict[str, Any]:
    """The content of `truth.json`.

    Parameters
    ----------
    masks : artery, vein, airway, each bool (z, y, x)
    imaging : settings of the image
    """
    draw = scene.anatomy.draw
    trees = {}
    for kind, tree in scene.trees.items():
        on_grid = betti_of_mask(masks[kind])
        trees[kind] = {
            "nodes": len(tree.parent),
            "branches": int(tree.branch.max()) + 1,
            "tips": int((tree.children == 0).sum()),
            "generations": int(tree.generation.max()),
            "radius_mm": [float(tree.radius_mm.min()), float(tree.radius_mm.max())],
            "continuous": {"b0": 1, "b1": 0},
            "mask": {"b0": on_grid[0], "b1": on_grid[1], "b2": on_grid[2]},
        }
    both = betti_of_mask(masks["artery"] | masks["vein"])
    return {
        "family": draw.family,
        "seed": draw.seed,
        "parameters": {name: draw[name] for name in RANGES[draw.family]},
        "shape": list(view.shape),
        "spacing_mm": list(view.spacing_mm),
        "centre_mm": list(view.centre_mm),
        "axes": "z towards the head, y towards the back, x towards the left; 0 in the middle of the chest",
        "imaging": imaging,
        "trees": trees,
        "vessels_mask": {"b0": both[0], "b1": both[1], "b2": both[2]},
        "mask_radius_mm": f"max(radius, {float(np.linalg.norm(view.spacing_mm)) / 2:.6g})",
        "labels": {name: {str(k): v for k, v in labels.items()} for name, labels in MASKS.items() if labels},
        "nodules": [
            {
                "number": k,
                "centre_mm": [round(c, 4) for c in n.centre_mm],
                "diameter_mm": round(n.diameter_mm, 4),
                "kind": n.kind,
                "attachment": n.attachment,
                "lobe": LOBES[n.lobe],
            }
            for k, n in enumerate(scene.nodules, 1)
        ],
    }


def write_truth(folder: Path, scene: Scene, description: dict[str, Any]) -> None:
    """Write `truth.json` and `truth.npz` into `folder`."""
    (folder / "truth.json").write_text(json.dumps(description, indent=1) + "\n")
    arrays: dict[str, np.ndarray] = {}
    for tree in scene.trees.values():
        arrays |= tree_arrays(tree)
    np.savez_compressed(folder / "truth.npz", allow_pickle=False, **arrays)
