"""A plugin of napari: open a CT in mm, and super-resolve a layer. `napari.yaml` beside it is its manifest.

napari imports this module when a file is opened; nothing else of uhrct does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume

#: lung window, HU
CONTRAST_HU = (-1000.0, 200.0)
LayerData = tuple[np.ndarray, dict[str, Any], str]
#: of a layer that shows a volume, in its metadata
KEY = "uhrct"


def reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """The function that reads `path`; None if uhrct cannot read it, so that napari asks another plugin.

    A folder with several series is left to others too: open the files of one series.
    """
    one = path if isinstance(path, str) else path[0] if len(path) == 1 else None
    if one is None:
        return None
    try:
        readable = [series for series in io.inspect(one) if not series.problem and not series.needs]
    except UhrctError:
        return None
    if len(readable) != 1:
        return None
    return lambda _: [layer(io.read(one), "CT")]


def layer(volume: Volume, name: str) -> LayerData:
    """A volume as napari shows it: axes (z, y, x), in mm in the coordinates of the patient (LPS, as (S, P, L)).

    Example
    -------
    >>> data, how, kind = layer(Volume(np.zeros((2, 3, 4), np.int16), (2.0, 0.7, 0.7), (10.0, 20.0, 30.0)), "CT")
    >>> kind, how["affine"][:, 3].tolist(), np.diag(how["affine"]).tolist()
    ('image', [30.0, 20.0, 10.0, 1.0], [2.0, 0.7, 0.7, 1.0])
    """
    affine = np.eye(4)
    affine[:3, :3] = (volume.direction * np.asarray(volume.spacing_mm))[::-1]  # (L, P, S) -> (S, P, L)
    affine[:3, 3] = volume.origin_mm[::-1]
    how = {
        "name": name,
        "affine": affine,
        "units": ("mm", "mm", "mm"),
        "contrast_limits": CONTRAST_HU,
        "colormap": "gray",
        "metadata": {KEY: volume},
    }
    return np.asarray(volume.hu), how, "image"


def upscaled(data: np.ndarray, metadata: dict[str, Any], name: str, **settings: Any) -> LayerData:
    """The result for a layer that `reader` or this function made.

    Raises
    ------
    UhrctError
        If the layer was made by another plugin, or its voxels were changed in shape.
    """
    from uhrct.upscaling.upscaler import Upscaler

    volume = metadata.get(KEY)
    if not isinstance(volume, Volume) or volume.shape != np.shape(data):
        raise UhrctError(f"layer {name}: open the scan with uhrct, so that its place and spacing are known")
    return layer(Upscaler(**settings)(volume).volume, f"{name} upscaled")


def upscale_widget() -> Any:
    """The panel "Upscale a CT". Needs magicgui, which napari brings. The computation runs in a thread of napari."""
    from magicgui import magicgui
    from napari import layers, viewer
    from napari.qt.threading import thread_worker

    compute = thread_worker(upscaled)

    @magicgui(
        call_button="Upscale (research use only)",
        scale={"choices": ["2", "4", "5x1x1", "5x2x2"]},
        quality={"choices": ["standard", "fast", "best"]},
        denoise={"min": 0.0, "max": 1.0, "step": 0.05},
    )
    def panel(
        window: viewer.Viewer, image: layers.Image, scale: str = "2", quality: str = "standard", denoise: float = 0.75
    ) -> None:
        worker = compute(image.data, image.metadata, image.name, scale=scale, quality=quality, denoise=denoise)
        worker.returned.connect(lambda made: window.add_image(made[0], **made[1]))
        worker.start()

    return panel
