"""Picture of lung masks on real scans (docs/evaluation.md). Look at it whenever `lung_mask` changes.

python tests/evaluation/draw_lung_masks.py docs/images/lung-masks.png ../shared/ct/train/lidc000* ...
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from uhrct import io
from uhrct.evaluation.lungs import lung_mask

COLUMNS = 6


def draw(scans: list[Path], path: Path) -> None:
    """One row per scan: slices from feet to head and a coronal cut, with contours of the mask."""
    figure, axes = plt.subplots(len(scans), COLUMNS + 1, figsize=(2 * COLUMNS + 2, 2 * len(scans)), squeeze=False)
    for row, folder in zip(axes, scans, strict=True):
        volume = io.read(folder)
        mask = lung_mask(volume.hu, volume.spacing_mm)
        litres = mask.sum() * np.prod(volume.spacing_mm) / 1e6
        print(f"{folder.name}: {litres:.2f} L", flush=True)
        y = volume.shape[1] // 2
        cuts = [
            (volume.hu[z], mask[z], 1.0, f"slice {z}")
            for z in np.linspace(0, volume.shape[0] - 1, COLUMNS + 2).round().astype(int)[1:-1]
        ]
        stretch = volume.spacing_mm[0] / volume.spacing_mm[2]
        cuts.append((volume.hu[::-1, y], mask[::-1, y], stretch, f"coronal, {litres:.1f} L"))
        for axis, (hu, lungs, aspect, title) in zip(row, cuts, strict=True):
            axis.imshow(hu, cmap="gray", vmin=-1350, vmax=150, aspect=aspect)
            if lungs.any():
                axis.contour(lungs, [0.5], colors="#ff4040", linewidths=0.6)
            axis.set_title(f"{folder.name} {title}", fontsize=6, pad=2)
            axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=75)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(96).save(path, optimize=True)  # a third of the size


if __name__ == "__main__":
    draw([Path(folder) for folder in sys.argv[2:]], Path(sys.argv[1]))
