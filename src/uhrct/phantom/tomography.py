"""Projections of a scanner and filtered backprojection: fan or parallel beam, slice by slice, Poisson noise by dose.

A fan is sorted into parallel rays before the filter, as in many scanners (rebinning). Then the filter is the same at
every pixel, and only half a turn is backprojected.

All slices of a batch share rays and pixels. So the sum over a ray, or over the views of a pixel, is one weighted
look-up of rows that hold all slices: `torch.nn.functional.embedding_bag`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uhrct.core.errors import UhrctError

if TYPE_CHECKING:
    import torch

MU_WATER_PER_MM = 0.0195  # at about 70 keV
#: Photons per ray at dose 1, for 1 mm slices and 0.7 mm detector elements. With the standard kernel, the noise in the
#: heart is about that of the model, and lower towards the skin.
PHOTONS = 8.0e4
BEAMS = ("fan", "parallel")
SOURCE_MM = 570.0  # from the X-ray source to the axis of rotation
FAN_REACH_MM = 330.0  # radius that a fan covers: table and body lie inside
#: Kernels as Hann windows: the end in periods per mm, and the limit relative to the Nyquist frequency, for coarse
#: pixels. Half of the end passes half the contrast: 0.35 per mm for a body kernel, 0.7 for a lung kernel.
KERNELS = {"standard": (0.7, 1.1), "sharp": (1.4, 2.0)}


class Scanner:
    """Geometry and reconstruction of square images.

    Parameters
    ----------
    n : side of the image, pixels
    pixel_mm : of the image, and of the detector at the axis of rotation
    views : parallel views over half a turn; None: about 1.2 n, enough to avoid streaks. A fan is read 1.6 n times in a
        whole turn and sorted into as many parallel views
    kernel : standard or sharp
    beam : fan or parallel

    Raises
    ------
    UhrctError
        On a kernel or beam that is not known.

    Example
    -------
    >>> import torch
    >>> y, x = np.mgrid[:64, :64] - 31.5
    >>> disc = torch.tensor(np.where(np.hypot(y, x) < 20, 0.0, -1000.0), dtype=torch.float32)[None]
    >>> scanner = Scanner(64, 1.0)
    >>> seen = scanner.reconstruct(scanner.project(disc))
    >>> bool(abs(seen[0, 22:42, 22:42].mean()) < 5)
    True
    """

    def __init__(
        self, n: int, pixel_mm: float, *, views: int | None = None, kernel: str = "standard", beam: str = "parallel"
    ) -> None:
        for name, given, known in (("kernel", kernel, KERNELS), ("beam", beam, BEAMS)):
            if given not in known:
                raise UhrctError(f"{name} {given!r} is not known; choose from {', '.join(known)}")
        self.n, self.pixel_mm, self.beam = n, pixel_mm, beam
        per_mm, of_nyquist = KERNELS[kernel]
        self.cutoff = min(per_mm * pixel_mm, of_nyquist / 2)  # periods per sample
        self.detectors = int(np.ceil(n * 2**0.5 / 2)) * 2 + 2
        views = views or int(1.2 * n)
        self.angles = np.arange(views) * np.pi / views
        # Readings: source positions and detector angles of the fan.
        self.fan_step = pixel_mm / SOURCE_MM
        reach_mm = min(n * pixel_mm * 2**-0.5, FAN_REACH_MM)
        self.fan_detectors = 2 * int(np.ceil(np.arcsin(reach_mm / SOURCE_MM) / self.fan_step)) + 2
        self.readings = views if beam == "parallel" else round(views * 4 / 3)

    @property
    def photon_share(self) -> float:
        """Photons per ray relative to the parallel beam, so that a whole scan has the same dose."""
        return len(self.angles) / self.readings

    def _rays(self, reading: int) -> tuple[np.ndarray, np.ndarray]:
        """(angle of the normal in radian, distance from the axis in pixels) of the rays of one reading."""
        if self.beam == "parallel":
            t = np.arange(self.detectors) - (self.detectors - 1) / 2
            return np.full(len(t), self.angles[reading]), t
        fan = (np.arange(self.fan_detectors) - (self.fan_detectors - 1) / 2) * self.fan_step
        return 2 * np.pi * reading / self.readings - fan, np.sin(fan) * SOURCE_MM / self.pixel_mm

    def project(self, hu: torch.Tensor) -> torch.Tensor:
        """Line integrals (readings, detectors, slices) of images (slices, y, x) in HU, by Joseph's method.

        References
        ----------
        Joseph, IEEE Trans. Med. Imaging 1982, doi 10.1109/TMI.1982.4307572.
        """
        import torch
        import torch.nn.functional as F

        mu = ((hu.float() + 1000) * (MU_WATER_PER_MM / 1000)).clamp(min=0)
        pixels = mu.permute(1, 2, 0).reshape(self.n * self.n, -1)
        table = torch.cat([pixels, pixels.new_zeros(1, pixels.shape[1])])
        half, outside = (self.n - 1) / 2, self.n * self.n
        steps = torch.arange(self.n)[None]
        out = []
        for reading in range(self.readings):
            angle, t = (torch.from_numpy(a).float()[:, None] for a in self._rays(reading))
            c, s = torch.cos(angle), torch.sin(angle)
            # Step along the axis that is closer to the ray, and interpolate along the other.
            by_columns = s.abs() > c.abs()
            given, wanted = torch.where(by_columns, c, s), torch.where(by_columns, s, c)
            at = (t - (steps - half) * given) / wanted + half
            low = torch.floor(at)
            share = at - low
            low = low.long()
            length = self.pixel_mm / wanted.abs()
            index, weight = [], []
            for k, w in ((low, 1 - share), (low + 1, share)):
                flat = torch.where(by_columns, k * self.n + steps, steps * self.n + k)
                index.append(torch.where((k >= 0) & (k < self.n), flat, outside))
                weight.append(w * length)
            out.append(F.embedding_bag(torch.cat(index, 1), table, per_sample_weights=torch.cat(weight, 1), mode="sum"))
        return torch.stack(out)

    def _parallel(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Line integrals of a fan (readings, fan's detectors, slices) as parallel views (views, detectors, slices).

        A turn reads every parallel ray twice, from both ends. The result is the mean of both, each interpolated
        linearly between the four nearest measured rays.

        References
        ----------
        Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.4.3.
        """
        import torch
        import torch.nn.functional as F

        table = torch.cat([sinogram.flatten(0, 1), sinogram.new_zeros(1, sinogram.shape[2])])
        t = (np.arange(self.detectors) - (self.detectors - 1) / 2) * self.pixel_mm / SOURCE_MM
        fan = np.arcsin(np.clip(t, -1, 1))
        out = []
        for angle in self.angles:
            index, weight = [], []
            for source, gamma in ((angle + fan, fan), (angle + np.pi - fan, -fan)):
                reading = source * self.readings / (2 * np.pi)
                detector = gamma / self.fan_step + (self.fan_detectors - 1) / 2
                i, j = np.floor(reading).astype(int), np.floor(detector).astype(int)
                for di, u in ((0, 1 - (reading - i)), (1, reading - i)):
                    for dj, v in ((0, 1 - (detector - j)), (1, detector - j)):
                        seen = (j + dj >= 0) & (j + dj < self.fan_detectors)
                        flat = (i + di) % self.readings * self.fan_detectors + j + dj
                        index.append(np.where(seen, flat, len(table) - 1))
                        weight.append(u * v / 2)
            bags, weights = (torch.from_numpy(np.stack(x, 1)) for x in (index, weight))
            out.append(F.embedding_bag(bags, table, per_sample_weights=weights.float(), mode="sum"))
        return torch.stack(out)

    def noisy(self, sinogram: torch.Tensor, photons: float, generator: torch.Generator) -> torch.Tensor:
        """Line integrals with Poisson noise, for `photons` that enter along each ray."""
        import torch

        counts = torch.poisson(photons * torch.exp(-sinogram), generator=generator).clamp(min=1)
        return -torch.log(counts / photons)

    def reconstruct(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Images (slices, y, x) in HU from line integrals, by ramp filter, kernel and backprojection."""
        import torch
        import torch.nn.functional as F

        filtered = self._filtered(sinogram if self.beam == "parallel" else self._parallel(sinogram))
        views, detectors, slices = filtered.shape
        half = (self.n - 1) / 2
        axis = torch.arange(self.n) - half
        total = filtered.new_zeros(self.n * self.n, slices)
        some = 16
        for k in range(0, views, some):
            index, weight = [], []
            for v in range(k, min(k + some, views)):
                c, s = float(np.cos(self.angles[v])), float(np.sin(self.angles[v]))
                at = (axis[None] * c + axis[:, None] * s).flatten() + (detectors - 1) / 2
                low = at.floor()
                share = at - low
                first = low.long() + (v - k) * detectors
                index += [first, first + 1]
                weight += [1 - share, share]
            table = filtered[k : k + some].reshape(-1, slices)
            total += F.embedding_bag(
                torch.stack(index, 1), table, per_sample_weights=torch.stack(weight, 1), mode="sum"
            )
        mu = total.T.reshape(slices, self.n, self.n) * (np.pi / views)
        return mu * (1000 / MU_WATER_PER_MM) - 1000

    def _filtered(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Filter with ramp times Hann window. The ramp comes from its samples in space, which keeps the mean right.

        References
        ----------
        Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, chapter 3, eq. 61.
        """
        import torch

        n = 2 ** int(np.ceil(np.log2(2 * self.detectors)))
        k = np.minimum(np.arange(n), n - np.arange(n)).astype(float)
        ramp = np.zeros(n)
        ramp[0] = 0.25
        odd = k % 2 == 1
        ramp[odd] = -1 / (np.pi * k[odd]) ** 2
        response = np.fft.rfft(ramp).real / self.pixel_mm
        frequency = np.arange(len(response)) / n
        response *= 0.5 + 0.5 * np.cos(np.pi * np.minimum(frequency / self.cutoff, 1))
        response /= np.sinc(frequency) ** 2  # compensates linear interpolation in backprojection
        spectrum = torch.fft.rfft(sinogram, n, dim=1)
        return torch.fft.irfft(spectrum * torch.tensor(response, dtype=torch.float32)[None, :, None], n, dim=1)[
            :, : self.detectors
        ].contiguous()


def scan(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    dose: float,
    seed: int,
    first: int,
    *,
    kernel: str = "standard",
    beam: str = "fan",
) -> np.ndarray:
    """Slices (z, y, x) in HU as a scanner shows them. The noise depends on the seed and `first` alone.

    Raises
    ------
    UhrctError
        If pixels are not square, or the kernel or beam is not known.
    """
    import torch

    if abs(spacing_mm[1] / spacing_mm[2] - 1) > 1e-6:
        raise UhrctError(f"projections need square pixels: spacing_mm is {spacing_mm}, give equal y and x")
    _z, y, x = hu.shape
    n = max(y, x)
    top, left = (n - y) // 2, (n - x) // 2
    square = np.pad(hu, ((0, 0), (top, n - y - top), (left, n - x - left)), constant_values=-1000)
    scanner = Scanner(n, spacing_mm[1], kernel=kernel, beam=beam)
    sinogram = scanner.project(torch.from_numpy(square))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + first) % 2**63)
    photons = PHOTONS * scanner.photon_share * dose * spacing_mm[0] * spacing_mm[1] / 0.7
    seen = scanner.reconstruct(scanner.noisy(sinogram, photons, generator)).numpy()
    return np.ascontiguousarray(seen[:, top : top + y, left : left + x])
