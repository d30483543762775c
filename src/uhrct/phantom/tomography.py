"""A scanner's projections and filtered backprojection: parallel beam, slice by slice, Poisson noise by dose.

The same rays and the same pixels serve every slice of a batch, so that a sum over a ray (or over the views of a
pixel) is one weighted look-up of rows that hold all slices: `torch.nn.functional.embedding_bag`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uhrct.errors import UhrctError

if TYPE_CHECKING:
    import torch

MU_WATER_PER_MM = 0.0195  # at about 70 keV
#: Photons per ray at dose 1, for 1 mm slices and 0.7 mm detector elements: 10 to 20 HU in a chest.
PHOTONS = 3.0e4
KERNELS = {"standard": 0.55, "sharp": 0.9}  # Hann window's cut-off, as a share of the Nyquist frequency


class Scanner:
    """Parallel-beam geometry for square images.

    Parameters
    ----------
    n : side of the image, pixels
    pixel_mm : of image and detector alike
    views : over half a turn; None: as many as keep streaks below the pixel (about 1.2 n)
    kernel : standard or sharp

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

    def __init__(self, n: int, pixel_mm: float, *, views: int | None = None, kernel: str = "standard") -> None:
        if kernel not in KERNELS:
            raise UhrctError(f"kernel {kernel!r} is not known; choose from {', '.join(KERNELS)}")
        self.n, self.pixel_mm, self.cutoff = n, pixel_mm, KERNELS[kernel]
        self.detectors = int(np.ceil(n * 2**0.5 / 2)) * 2 + 2
        self.angles = np.arange(views or int(1.2 * n)) * np.pi / (views or int(1.2 * n))

    def project(self, hu: torch.Tensor) -> torch.Tensor:
        """Line integrals (views, detectors, slices) of attenuation, by Joseph's method, of images (slices, y, x) in HU.

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
        t = torch.arange(self.detectors) - (self.detectors - 1) / 2
        line = torch.arange(self.n) - half
        out = []
        for angle in self.angles:
            c, s = float(np.cos(angle)), float(np.sin(angle))
            # walk along the axis that the ray is steeper to, interpolate along the other
            by_columns = abs(s) > abs(c)
            given, wanted = (c, s) if by_columns else (s, c)
            at = (t[:, None] - line[None] * given) / wanted + half
            low = torch.floor(at)
            share = at - low
            low = low.long()
            index, weight = [], []
            for k, w in ((low, 1 - share), (low + 1, share)):
                steps = torch.arange(self.n)[None].expand_as(k)
                flat = k * self.n + steps if by_columns else steps * self.n + k
                index.append(torch.where((k >= 0) & (k < self.n), flat, outside))
                weight.append(w)
            length = self.pixel_mm / max(abs(c), abs(s))
            out.append(
                F.embedding_bag(
                    torch.cat(index, 1), table, per_sample_weights=torch.cat(weight, 1) * length, mode="sum"
                )
            )
        return torch.stack(out)

    def noisy(self, sinogram: torch.Tensor, photons: float, generator: torch.Generator) -> torch.Tensor:
        """Line integrals of counts that follow Poisson's law, `photons` of which enter along each ray."""
        import torch

        counts = torch.poisson(photons * torch.exp(-sinogram), generator=generator).clamp(min=1)
        return -torch.log(counts / photons)

    def reconstruct(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Images (slices, y, x) in HU by ramp filter, kernel and backprojection."""
        import torch
        import torch.nn.functional as F

        filtered = self._filtered(sinogram)
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
        """Ramp times Hann window. The ramp is made of its samples in space, which keeps the mean right.

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
        share = np.arange(len(response)) / (len(response) - 1) / self.cutoff
        response *= np.where(share < 1, 0.5 + 0.5 * np.cos(np.pi * share), 0)
        spectrum = torch.fft.rfft(sinogram, n, dim=1)
        return torch.fft.irfft(spectrum * torch.tensor(response, dtype=torch.float32)[None, :, None], n, dim=1)[
            :, : self.detectors
        ].contiguous()


def scan(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], dose: float, seed: int, first: int, kernel: str = "standard"
) -> np.ndarray:
    """Slices (z, y, x) as a scanner would show them; noise depends on the seed and `first` alone.

    Raises
    ------
    UhrctError
        If pixels are not square.
    """
    import torch

    if abs(spacing_mm[1] / spacing_mm[2] - 1) > 1e-6:
        raise UhrctError("projections need square pixels: give --spacing with Y equal to X")
    _z, y, x = hu.shape
    n = max(y, x)
    top, left = (n - y) // 2, (n - x) // 2
    square = np.pad(hu, ((0, 0), (top, n - y - top), (left, n - x - left)), constant_values=-1000)
    scanner = Scanner(n, spacing_mm[1], kernel=kernel)
    sinogram = scanner.project(torch.from_numpy(square))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + first) % 2**63)
    photons = PHOTONS * dose * spacing_mm[0] * spacing_mm[1] / 0.7
    seen = scanner.reconstruct(scanner.noisy(sinogram, photons, generator)).numpy()
    return np.ascontiguousarray(seen[:, top : top + y, left : left + x])
