"""`uhrct calibrate`: make the intervals of a model hold 90 % of the voxels of patients that it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import Device, Quiet, say, torch_device


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder, or folder of a training run.", show_default=False)],
    scans: Annotated[
        Path,
        typer.Option(help="Folder of DICOM series of at least nine patients who were not used in training."),
    ] = Path("../shared/ct/calibration"),
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Calibrate the intervals of a model (--uncertainty) on other patients; writes calibration.json into its folder."""
    from uhrct.models.calibration import CALIBRATION, save_calibration
    from uhrct.models.folder import model_folder
    from uhrct.models.model import Model
    from uhrct.upscaling.calibrate import calibrate as calibrate_model

    folder = model_folder(model)
    loaded = Model.from_pretrained(folder, torch_device(device), calibrated=False)
    found = calibrate_model(loaded, scans, quiet=quiet)
    save_calibration(found, folder)
    for name, t in found.kernel_known.items():
        say(
            f"{name}: factor {t.factor:.2f}; calibration patients {100 * t.coverage[0]:.0f} to "
            f"{100 * t.coverage[-1]:.0f} % inside; guaranteed for a new patient {100 * t.guaranteed:.1f} %",
            quiet,
        )
    say(f"{folder / CALIBRATION}: {found.slices} slices of {found.patients} patients, simulated degradation", quiet)
