"""What a page may ask for, checked with the classes of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uhrct.core.errors import UhrctError

if TYPE_CHECKING:
    from uhrct.upscaling.plan import UpscaleSettings

#: Formats of a result -> what its name ends with; "input": that of the scan.
FORMATS = {"nifti": ".nii.gz", "dicom": ""}


class Wish(BaseModel):
    """The settings of one run.

    Attributes
    ----------
    series : number in the list of the scan
    scale : "auto" is the default of `uhrct upscale`
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    series: int = Field(default=1, ge=1)
    scale: Literal["auto", "2", "4", "5x1x1", "5x2x2"] = "auto"
    quality: str = Field(default="standard", max_length=20)
    denoise: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    audit: bool = False
    untilt: bool = False
    format: Literal["input", "nifti", "dicom"] = "input"

    def settings(self, device: str) -> UpscaleSettings:
        """The settings as `uhrct upscale` has them. Raises `UhrctError` if they do not go together."""
        from uhrct.upscaling.plan import UpscaleSettings

        scale = None if self.scale == "auto" else self.scale
        return UpscaleSettings(scale=scale, quality=self.quality, denoise=self.denoise, device=device)


def parsed_wish(text: bytes) -> Wish:
    """The wish in a request.

    Raises
    ------
    UhrctError
        If it is none.

    Example
    -------
    >>> parsed_wish(b'{"scale": "4", "quality": "fast"}').scale
    '4'
    """
    try:
        return Wish.model_validate_json(text)
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors(include_url=False, include_input=False, include_context=False)[0])
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise UhrctError(f"`{where or 'settings'}`: {first['msg']}") from None
