"""Settings that are checked when they are read. An unknown key or an impossible value gives one line that names it."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args, get_origin

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
#: types of the errors about keys that do not exist
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def checked(kind: type[_Kind], raw: Any, where: str) -> _Kind:
    """`raw` as settings of a kind.

    Parameters
    ----------
    where : names the file or the argument in an error

    Raises
    ------
    UhrctError
        For the first key that is unknown, else for the first that is missing or impossible.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        # a key with a typing error is unknown, and the right one is missing: the first says more
        first = next((e for e in found if e["type"] in UNKNOWN), found[0])
        raise UhrctError(f"{where}: {_problem(first, kind)}") from None
    except UhrctError as error:  # of a group that checks itself, such as the structure operator
        raise UhrctError(f"{where}: {error}") from None


def _problem(error: ErrorDetails, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in UNKNOWN:
        return f"unknown setting {key}; known: {', '.join(_known(kind, error['loc'][:-1]))}"
    what = " ".join(error["msg"].removeprefix("Value error, ").split())
    if error["type"] == "missing":
        return f"setting {key} is missing"
    if not key:
        return what
    if error["type"] in ("tuple_type", "list_type"):
        what = "should be a list"
    elif error["type"] == "too_short":
        what = "should not be empty"
    given = str(error["input"])
    return f"setting {key}={given[:60]}{'...' if len(given) > 60 else ''}: {what[0].lower()}{what[1:]}"


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The keys of the group of settings, or of the dataclass, that `path` leads to."""
    for part in path:
        fields = getattr(kind, "model_fields", None)
        # a part of a path is the name of a field, or a place in a list, or a key of a dict
        kind = _plain(fields[part].annotation if fields else get_args(kind)[1 if get_origin(kind) is dict else 0])
    return sorted(getattr(kind, "model_fields", None) or kind.__dataclass_fields__)


def _plain(annotation: Any) -> Any:
    """An annotation without its metadata, and without None as a choice."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if type(None) in get_args(annotation):
        return _plain(next(k for k in get_args(annotation) if k is not type(None)))
    return annotation
