"""The configuration of a node: one YAML file, checked completely before anything starts."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from uhrct.core.errors import UhrctError
from uhrct.core.yaml_text import parsed_yaml
from uhrct.models.settings import Settings, checked

_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


def _title(text: str) -> str:
    if not _TITLE.fullmatch(text):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash, no space at its ends")
    return text


Title = Annotated[str, AfterValidator(_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$")]
#: one pattern or a list of patterns, such as "B70*"; upper and lower case are the same
Patterns = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v or ())]
#: settings that add outputs, which a node does not send, or that a file cannot express
NOT_HERE = ("structure", "interval", "precision")
#: characters of a bearer token, at least
TOKEN_LENGTH = 16


class Tls(Settings):
    """Certificates. Both sides of a connection use TLS 1.2 or later."""

    #: own certificate (PEM) and its key; a server needs them
    certificate: Path | None = None
    key: Path | None = None
    #: certificates of the authorities that the other side's certificate must come from
    ca: Path | None = None


class Secret(Settings):
    """A bearer token, in a file or in an environment variable, never in the configuration itself."""

    token_file: Path | None = None
    token_env: str | None = None

    def token(self) -> str | None:
        """The token; None if there is none. Raises `UhrctError` if it cannot be read or is too short."""
        if self.token_file is not None and self.token_env is not None:
            raise UhrctError("token_file and token_env exclude each other; give one of them")
        if self.token_file is not None:
            try:
                text = self.token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UhrctError(f"token_file {self.token_file}: cannot be read ({_why(error)})") from None
        elif self.token_env is not None:
            text = os.environ.get(self.token_env, "").strip()
        else:
            return None
        if len(text) < TOKEN_LENGTH or not text.isascii() or not text.isprintable():
            raise UhrctError(f"the token is missing or has fewer than {TOKEN_LENGTH} printable ASCII characters")
        return text


class Receive(Settings):
    """The DICOM server (C-STORE, C-ECHO) and its bounds."""

    #: only this machine can reach 127.0.0.1; 0.0.0.0 opens all network interfaces
    address: str = "127.0.0.1"
    #: 0: any free port
    port: Port = 11112
    #: AE titles that may connect
    callers: Annotated[tuple[Title, ...], Field(min_length=1)]
    tls: Tls | None = None
    #: largest PDU (packet) in KiB
    max_pdu_kb: Annotated[int, Field(ge=16, le=16384)] = 128
    #: largest object in MB; objects are held in memory while they arrive
    max_object_mb: PositiveInt = 128
    #: associations (connections) at the same time
    max_associations: Annotated[int, Field(ge=1, le=200)] = 20
    #: the folder of received files holds at most so much
    quota_gb: PositiveFloat = 50.0
    #: time for the opening of an association
    acse_s: PositiveFloat = 30.0
    #: time for an answer of the other side
    dimse_s: PositiveFloat = 30.0
    #: time without any data, and for one packet
    network_s: PositiveFloat = 60.0
    #: time for one whole object
    object_s: PositiveFloat = 300.0


class Stow(Secret):
    """The STOW-RS server (HTTP). It needs a token."""

    address: str = "127.0.0.1"
    port: Port = 8042
    tls: Tls | None = None
    #: largest request in MB; requests are held on disk while they arrive
    max_request_mb: PositiveInt = 1024
    #: requests at the same time
    max_requests: PositiveInt = 8
    #: time for one whole request
    request_s: PositiveFloat = 300.0


class Poll(Secret):
    """A DICOMweb server that is asked for new CT series."""

    url: Url
    every_s: PositiveFloat = 60.0
    ca: Path | None = None
    #: only studies of the last so many days; None: all
    days: PositiveInt | None = None
    #: largest series in MB
    max_series_mb: PositiveInt = 4096
    timeout_s: PositiveFloat = 60.0


class Peer(Secret):
    """Where results are sent to: a DICOM server (host, port, ae_title) or a STOW-RS server (url)."""

    ae_title: Title | None = None
    host: str | None = None
    port: Port | None = None
    tls: Tls | None = None
    url: Url | None = None
    ca: Path | None = None
    timeout_s: PositiveFloat = 60.0

    @model_validator(mode="after")
    def _one_kind(self) -> Peer:
        dicom = (self.ae_title, self.host, self.port)
        if (self.url is None) == all(v is None for v in dicom) or (self.url is None and None in dicom):
            raise ValueError("a peer needs ae_title, host and port, or url")
        return self


class Match(Settings):
    """Which series: all conditions that are given must hold."""

    modality: Literal["CT"] = "CT"
    #: ConvolutionKernel
    kernel: Patterns = ()
    #: SliceThickness in mm, from and to
    slice_thickness_mm: tuple[float, float] | None = None
    #: SeriesDescription
    description: Patterns = ()
    manufacturer: Patterns = ()
    #: BodyPartExamined
    body_part: Patterns = ()

    @model_validator(mode="after")
    def _range(self) -> Match:
        if self.slice_thickness_mm is not None and self.slice_thickness_mm[0] > self.slice_thickness_mm[1]:
            raise ValueError("slice_thickness_mm: the first number is larger than the second")
        return self


class Rule(Match):
    """Series to process: how, and where to send the results."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
    #: also series that are derived images (ImageType), such as reformations; results of uhrct never are
    derived: bool = False
    #: fields of `uhrct.upscaling.plan.UpscaleSettings`
    settings: dict[str, Any] = Field(default_factory=dict)
    #: names of peers
    send_to: Annotated[Patterns, Field(min_length=1)]


class NodeConfig(Settings):
    """Everything about a node."""

    ae_title: Title = "UHRCT"
    #: `incoming/` and `outgoing/` lie below it
    folder: Path
    receive: Receive
    stow: Stow | None = None
    poll: tuple[Poll, ...] = ()
    #: series that are never processed, whatever the rules say
    never: tuple[Match, ...] = ()
    #: the first rule that fits a series decides
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    peers: dict[str, Peer]
    #: a series is complete when nothing of it has arrived for so long
    quiet_s: PositiveFloat = 30.0
    #: worker processes; they share the cores
    workers: PositiveInt = 1
    #: days after which received files and results of delivered series are removed; None: never
    retention_days: PositiveFloat | None = None

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def outgoing(self) -> Path:
        return self.folder / "outgoing"

    @model_validator(mode="after")
    def _names(self) -> NodeConfig:
        names = [rule.name for rule in self.rules]
        for rule in self.rules:
            if names.count(rule.name) > 1:
                raise ValueError(f"two rules are called {rule.name}; give each another name")
            for peer in rule.send_to:
                if peer not in self.peers:
                    known = ", ".join(self.peers) or "none"
                    raise ValueError(f"rule {rule.name} sends to {peer}, which is no peer; known: {known}")
        return self


def load_config(path: Path) -> NodeConfig:
    """Read and check a configuration. Paths in it are relative to its folder.

    Raises
    ------
    UhrctError
        One line for the first thing that is wrong: an unknown key, an impossible value, a setting of `uhrct upscale`
        that does not exist, a missing certificate or token.
    """
    try:
        raw = parsed_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UhrctError(f"{path}: cannot be read ({_why(error)})") from None
    except (yaml.YAMLError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        raise UhrctError(f"{path}: is not YAML{f' (line {place.line + 1})' if place else ''}") from None
    except UhrctError as error:
        raise UhrctError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise UhrctError(f"{path}: holds no settings; see docs/node.md for an example")
    config = checked(NodeConfig, _absolute(raw, path.absolute().parent), str(path))
    for rule in config.rules:
        try:
            check_settings(rule.settings)
        except UhrctError as error:
            raise UhrctError(f"{path}: rule {rule.name}: {error}") from None
    if config.stow is not None and config.stow.token_file is None and config.stow.token_env is None:
        raise UhrctError(f"{path}: stow needs token_file or token_env, so that not everybody can send")
    for name, secret in _secrets(config):
        try:
            secret.token()
        except UhrctError as error:
            raise UhrctError(f"{path}: {name}: {error}") from None
    return config


def check_settings(settings: dict[str, Any]) -> None:
    """Raise `UhrctError` if an upscaler of a node cannot have these settings on this machine."""
    from uhrct.upscaling.plan import UpscaleSettings
    from uhrct.upscaling.upscaler import Upscaler

    for name in NOT_HERE:
        if name in settings:
            known = ", ".join(f.name for f in fields(UpscaleSettings) if f.name not in NOT_HERE)
            raise UhrctError(f"settings has {name}, which a node does not have; known: {known}")
    Upscaler(**settings).check()


def _secrets(config: NodeConfig) -> list[tuple[str, Secret]]:
    found: list[tuple[str, Secret]] = [(f"peers.{name}", peer) for name, peer in config.peers.items()]
    found += [(f"poll.{k}", poll) for k, poll in enumerate(config.poll)]
    return found + ([("stow", config.stow)] if config.stow else [])


#: keys that hold paths
_PATHS = ("folder", "certificate", "key", "ca", "token_file")


def _absolute(raw: Any, folder: Path) -> Any:
    """The same settings with absolute paths."""
    if isinstance(raw, dict):
        return {
            k: str(folder / v) if k in _PATHS and isinstance(v, str) else _absolute(v, folder) for k, v in raw.items()
        }
    return [_absolute(v, folder) for v in raw] if isinstance(raw, list) else raw


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or "no text in UTF-8"
