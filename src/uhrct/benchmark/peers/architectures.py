"""The peers by name."""

from __future__ import annotations

from typing import Any

from uhrct.benchmark.peers.gan_circle import GanCircle
from uhrct.benchmark.peers.peer import Peer
from uhrct.benchmark.peers.rcan import RCAN
from uhrct.benchmark.peers.resshift import ResShift
from uhrct.benchmark.peers.sr3 import SR3
from uhrct.benchmark.peers.srcnn import SRCNN
from uhrct.benchmark.peers.srresnet import SRResNet
from uhrct.core.errors import UhrctError

PEERS: dict[str, type[Peer]] = {
    "srcnn": SRCNN,
    "srresnet": SRResNet,
    "rcan": RCAN,
    "gan-circle": GanCircle,
    "sr3": SR3,
    "resshift": ResShift,
}


def make_peer(settings: dict[str, Any], scale: tuple[int, int, int]) -> Peer:
    """The peer named by ``settings["architecture"]``, with the sizes in the other settings.

    Raises
    ------
    UhrctError
        For an unknown name or size, and for scales other than x2 and x4 in plane.

    Example
    -------
    >>> sum(p.numel() for p in make_peer({"architecture": "srcnn"}, (1, 2, 2)).parameters())
    57281
    """
    sizes = dict(settings)
    name = sizes.pop("architecture", None)
    if name not in PEERS:
        raise UhrctError(f"peer architecture {name!r} is not known; choose from {', '.join(PEERS)}")
    if scale not in ((1, 2, 2), (1, 4, 4)):
        raise UhrctError(f"scale {scale}: peers are for single slices at x2 and x4; give (1, 2, 2) or (1, 4, 4)")
    try:
        return PEERS[name](scale=scale[1], **sizes)
    except TypeError as error:
        raise UhrctError(f"peer {name}: unknown setting ({error})") from error
