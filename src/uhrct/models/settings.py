"""Settings that are checked when they are read. An unknown key or an impossible value gives one line that names it."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from uhrct.core.errors import UhrctError


class Settings(BaseModel):
    """A group of settings: constant once made, without unknown keys, without infinite numbers.

    Example
    -------
    >>> class Size(Settings):
    ...     width: int = 8
    >>> checked(Size, {"width": 16}, "size.yaml")
    Size(width=16)
    >>> checked(Size, {"widht": 16}, "size.yaml")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: size.yaml: unknown setting widht; known: width
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return self.model_dump(mode="json")


_Kind = TypeVar("_Kind", bound=Settings)


def checked(kind: type[_Kind], raw: Any, where: str) -> _Kind:
    """`raw` as settings of a kind.

    Parameters
    ----------
    where : names the file or the argument in an error

    Raises
    ------
    UhrctError
        For the first key that is unknown, missing or impossible.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise UhrctError(f"{where}: {_problem(error.errors()[0], kind)}") from None
    except UhrctError as error:  # of a group that checks itself, such as the structure operator
        raise UhrctError(f"{where}: {error}") from None


def _problem(error: ErrorDetails, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown setting {key}; known: {', '.join(_known(kind, error['loc'][:-1]))}"
    what = " ".join(error["msg"].removeprefix("Value error, ").split())
    if not key:
        return what
    given = str(error["input"])
    return f"setting {key}={given[:60]}{'...' if len(given) > 60 else ''}: {what[0].lower()}{what[1:]}"


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The keys of the group of settings, or of the dataclass, that `path` leads to."""
    for part in path:
        annotation = kind.model_fields[part].annotation
        kind = next(k for k in (*get_args(annotation), annotation) if k is not type(None))
    return sorted(getattr(kind, "model_fields", None) or kind.__dataclass_fields__)
