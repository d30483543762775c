"""Measures the residuals that a denoiser has to draw: their size, where they are large, and their power spectrum.

python -m uhrct.training.residuals 5x2x2 --config configs/5x2x2.yaml

measures those of a trained model on batches of its configuration, and writes the start of its samples
(`uhrct.models.sample_start`) into the `config.json` of its folder. The weights stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import torch

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_json
from uhrct.models.estimator import INSIDE_HU
from uhrct.models.folder import CONFIG, model_folder
from uhrct.models.model import Model
from uhrct.models.sample_start import LEFT_OUT, SampleStart, amplitudes
from uhrct.models.spread import fitted, sd_of, signs
from uhrct.training.config import load_recipe
from uhrct.training.data.batch import hr_crop
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Corpus

#: batches that are measured; for the fit of the local size every so many pixels
BATCHES, EVERY = 16, 16


@torch.no_grad()
def measured_residual(model: Model, batches: BatchMaker) -> dict[str, Any]:
    """`sample_sd_hu`, `sample_spread` and `sample_start` of a `ModelConfig`.

    The first is the root mean square of truth minus mean in the body. Divided by it, the residual that the denoiser
    diffuses has about unit variance. Without a mean network it is that of the interpolation, and the other two are None
    (the paper's system).
    """
    seen, errors, insides = [], [], []
    for step in range(BATCHES):
        batch = batches(step)
        f = model.features(batch.lr_hu, batch.spacing_mm, batch.properties)
        anchor = f.up_hu if model.mean is None else model.mean_hu(f)[0]
        kept = torch.tensor([(1 - s.denoise) * s.noise_hu * s.noise_known for s in batch.scans])
        look = signs(anchor, f.up_hu, kept.to(anchor)[:, None, None, None]).movedim(-1, 0)
        error, truth = (hr_crop(image, model.config.scale) for image in (batch.hr_hu - anchor, batch.hr_hu))
        errors.append(error)
        insides.append(truth > INSIDE_HU)
        seen.append(hr_crop(look, model.config.scale))
    error, inside, look = torch.cat(errors), torch.cat(insides), torch.cat(seen, 1)
    every = error[inside].double()
    sd_hu = round(math.sqrt(float(every.square().mean())), 1) if len(every) else 0.0
    found: dict[str, Any] = {"sample_sd_hu": sd_hu or 1.0, "sample_spread": None, "sample_start": None}
    if model.mean is not None and len(every):
        a, b, c, d = fitted(look[:, inside].T[::EVERY], every[::EVERY])
        spread = (a, b, c, d)
        normal = error / sd_of(look.movedim(0, -1), spread)
        found["sample_spread"] = spread
        if model.config.scale[0] > 1:  # at x4 samples varied too much with it
            found["sample_start"] = SampleStart(spread=spread, amplitudes=amplitudes(normal, inside))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="name, or a model folder")
    parser.add_argument("--config", required=True, help="configuration file with a stage denoiser")
    parser.add_argument("--left-out", type=float, default=LEFT_OUT, help="share of the sampling that is left out")
    parser.add_argument("settings", nargs="*", help="changes to the configuration, as in uhrct train")
    args = parser.parse_intermixed_args()
    folder = model_folder(args.weights)
    model = Model.from_pretrained(folder)
    if model.denoiser is None or model.config.scale[0] == 1:
        raise UhrctError(f"{folder}: only samples of a model through plane begin with a random residual")
    config = load_recipe(args.config, ["stages=[denoiser]", *args.settings])[0]
    patients = Corpus.load(config.data, torch.device("cpu")).patients
    context = model.config.context
    found = measured_residual(
        model, BatchMaker(patients, config.data, model.acquisition, context=context, seed=config.seed)
    )
    start = found["sample_start"].model_copy(update={"left_out": args.left_out})
    stored = json.loads((folder / CONFIG).read_text())
    write_json(folder / CONFIG, stored | {"sample_start": start.as_dict()})


if __name__ == "__main__":
    main()
