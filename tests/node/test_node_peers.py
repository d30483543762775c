"""C-STORE to a peer: what counts as sent, as refused, and as away."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_case import associate, config, pacs, receiver, series, wait_for

from uhrct.node.config import Peer
from uhrct.node.peers import NotSent, echo, send


@pytest.mark.parametrize(
    ("status", "refused"), [(0xA700, False), (0xA900, True), (0xC000, True), (0x0122, True)], ids=hex
)
def test_a_failure_status_is_not_sent(tmp_path: Path, status: int, refused: bool) -> None:
    with pacs(answer=lambda: status) as archive, pytest.raises(NotSent, match=f"0x{status:04X}") as caught:
        send(Peer(**archive.peer), "UHRCT", series(tmp_path / "in"))
    assert caught.value.refused == refused


def test_a_warning_counts_as_stored(tmp_path: Path) -> None:
    asked = []
    files = series(tmp_path / "in")
    with pacs(answer=lambda: asked.append(1) or 0xB000) as archive:
        send(Peer(**archive.peer), "UHRCT", files)
    assert len(asked) == len(files)  # it went on after each warning


def test_a_peer_that_does_not_know_us_refuses_and_one_that_is_busy_or_away_does_not(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    with receiver(config(tmp_path, receive={"max_associations": 1})) as (server, _):
        peer = Peer(ae_title="UHRCT", host="127.0.0.1", port=server.port, timeout_s=5)
        with pytest.raises(NotSent, match="rejected") as caught:
            send(peer, "STRANGER", files)
        assert caught.value.refused
        # the association that was rejected counts until its thread has ended
        tries = [associate(server.port)]
        wait_for(lambda: tries[-1].is_established or tries.append(associate(server.port)))
        busy = tries[-1]
        with pytest.raises(NotSent, match="rejected") as caught:
            send(peer, "SCANNER", files)
        assert not caught.value.refused
        busy.release()
    assert echo(peer, "SCANNER") == "no connection"
    with pytest.raises(NotSent, match="no connection") as caught:
        send(peer, "SCANNER", files)
    assert not caught.value.refused


def test_a_node_that_stops_sends_no_further_image(tmp_path: Path) -> None:
    with pacs() as archive:
        with pytest.raises(NotSent, match="stops"):
            send(Peer(**archive.peer), "UHRCT", series(tmp_path / "in"), stopped=lambda: len(archive.arrived) > 0)
        assert len(archive.arrived) == 1
