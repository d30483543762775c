"""The DICOM server: what it takes, what it refuses, and that nobody can keep it from others."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from ct_files import PATIENT
from node_case import SHAPE, associate, config, hostile_objects, receiver, series, store, store_bytes, wait_for
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from uhrct.node import log as node_log
from uhrct.node.incoming import NEW, NO_MATCH, NOT_UNDERSTOOD, OUT_OF_RESOURCES, Incoming

EXPLICIT = str(ExplicitVRLittleEndian)


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the node logs."""
    monkeypatch.setattr(node_log.LOG, "propagate", True)
    caplog.set_level(logging.INFO, node_log.LOG.name)
    return caplog


def received(incoming: Incoming) -> list[Path]:
    """All files that lie there; nothing unfinished may be left."""
    assert list((incoming.folder / NEW).iterdir()) == []
    return sorted(f for folder in incoming.series() for f in folder.iterdir())


def encoded(file: Path) -> tuple[bytes, str]:
    """The data set of a file as it is sent, and its SOPInstanceUID."""
    content = file.read_bytes()
    length = struct.unpack("<I", content[140:144])[0]
    return content[144 + length :], str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)


def test_echo_and_store(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    with receiver(config(tmp_path)) as (server, incoming):
        association = associate(server.port)
        assert association.send_c_echo().Status == 0
        association.release()
        assert store(server.port, files) == [0] * len(files)
        found = received(incoming)
    assert len(incoming.series()) == 1
    sent = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, files)}
    assert len(found) == len(sent)
    for ds in map(dcmread, found):
        assert ds == sent[str(ds.SOPInstanceUID)]  # every element, pixels among them
    assert incoming.used_bytes == 4096 * len(files)


def test_titles_are_checked_and_the_log_says_which_was_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_log.LOG, "propagate", True)
    with receiver(config(tmp_path)) as (server, _):
        assert associate(server.port, caller="STRANGER").is_rejected
        assert associate(server.port, called="OTHER").is_rejected

        def told() -> list[str]:
            return [r.getMessage() for r in caplog.records if r.name == node_log.LOG.name]

        wait_for(lambda: len(told()) == 2)
        assert told() == [
            "an association from 127.0.0.1 was rejected: its AE title is not in callers",
            "an association from 127.0.0.1 was rejected: it did not call UHRCT",
        ]
        association = associate(server.port)
        assert association.is_established
        association.release()


def test_other_modalities_are_refused(tmp_path: Path) -> None:
    [mr, *_] = series(tmp_path / "mr", edit=lambda k, ds: ds.update({"Modality": "MR"}))
    with receiver(config(tmp_path)) as (server, incoming):
        association = associate(server.port)
        assert MRImageStorage not in {c.abstract_syntax for c in association.accepted_contexts}
        assert association.send_c_store(dcmread(mr)).Status == NO_MATCH  # an MR that calls itself CT
        association.release()
        assert received(incoming) == []


def test_the_message_must_be_about_its_object(tmp_path: Path) -> None:
    content, uid = encoded(series(tmp_path / "in")[0])
    with receiver(config(tmp_path)) as (server, incoming):
        association = associate(server.port)
        assert store_bytes(association, content, CTImageStorage, "1.2.3", EXPLICIT) == NO_MATCH
        assert store_bytes(association, content, CTImageStorage, uid, EXPLICIT) == 0
        association.release()
        assert len(received(incoming)) == 1


def test_another_object_with_the_same_uid_is_refused_and_the_same_object_is_welcome(tmp_path: Path) -> None:
    first, second = series(tmp_path / "a"), series(tmp_path / "b", edit=lambda k, ds: ds.update({"KVP": "99"}))
    with receiver(config(tmp_path)) as (server, incoming):
        assert store(server.port, first) == [0, 0]
        before = [(f, f.read_bytes(), f.stat().st_mtime_ns) for f in received(incoming)]
        used = incoming.used_bytes
        assert store(server.port, first) == [0, 0]
        assert store(server.port, second) == [NO_MATCH, NO_MATCH]
        assert [(f, f.read_bytes(), f.stat().st_mtime_ns) for f in received(incoming)] == before
        assert incoming.used_bytes == used


def test_two_patients_never_share_a_folder(tmp_path: Path) -> None:
    with receiver(config(tmp_path)) as (server, incoming):
        store(server.port, series(tmp_path / "a"))
        edit = lambda k, ds: ds.update({"PatientID": "OTHER", "SOPInstanceUID": f"1.2.{k}"})  # noqa: E731
        store(server.port, series(tmp_path / "b", edit=edit))
        assert len(incoming.series()) == 2


def test_an_object_that_is_too_large_ends_the_association(tmp_path: Path) -> None:
    files = series(tmp_path / "in", shape=(2, 1200, 1200))  # 2.9 MB each
    small = series(tmp_path / "small", seed=1)
    with receiver(config(tmp_path, receive={"max_object_mb": 1})) as (server, incoming):
        association = associate(server.port)
        assert "Status" not in association.send_c_store(dcmread(files[0]))
        assert store(server.port, small) == [0, 0]
        assert len(received(incoming)) == 2


def test_the_quota_is_kept(tmp_path: Path) -> None:
    files = series(tmp_path / "in", shape=(6, 24, 24))
    with receiver(config(tmp_path, receive={"quota_gb": 4096 * 4 / 1e9})) as (server, incoming):
        found = store(server.port, files)
        assert sorted(found) == [0] * 4 + [OUT_OF_RESOURCES] * 2
        assert len(received(incoming)) == 4
        incoming.remove(incoming.series()[0])
        assert incoming.used_bytes == 0
        assert store(server.port, files[:1]) == [0]


def test_files_of_an_earlier_run_count_and_unfinished_ones_vanish(tmp_path: Path) -> None:
    node = config(tmp_path)
    with receiver(node) as (server, _):
        store(server.port, series(tmp_path / "in"))
    (node.incoming / NEW / "half").write_bytes(b"x" * 100)
    again = Incoming(node.incoming, 10**9, 10**6)
    assert again.used_bytes == 2 * 4096
    assert len(received(again)) == 2


@pytest.mark.slow
def test_damaged_objects_are_refused_and_never_crash_the_server(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    statuses: set[int | None] = set()
    count = 0
    with receiver(config(tmp_path)) as (server, incoming):
        association = associate(server.port)
        for name, content in hostile_objects(tmp_path / "zoo"):
            if not association.is_established:
                association = associate(server.port)
            status = store_bytes(association, content, CTImageStorage, "1.2.4711", EXPLICIT)
            assert status in (NOT_UNDERSTOOD, NO_MATCH, OUT_OF_RESOURCES), name
            statuses.add(status)
            count += 1
        association.release()
        assert store(server.port, series(tmp_path / "good", seed=99)) == [0, 0]
        assert len(received(incoming)) == 2
    assert count > 200
    assert {NOT_UNDERSTOOD, NO_MATCH} <= statuses
    assert PATIENT not in said.text
    assert "internal error" not in said.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",  # a request of 4 GB
        b"\x04\x00\x00\x00\x00\x10" + bytes(16),  # data without an association
        b"\x01\x00\x00\x00\x00\x04\x00\x01\x00\x00",  # a request that ends too early
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        bytes(range(256)) * 40,
    ],
    ids=["nothing", "zeros", "http", "4 GB", "data first", "short", "tls", "noise"],
)
def test_other_protocols_are_cut_off(tmp_path: Path, content: bytes) -> None:
    files = series(tmp_path / "in")
    with receiver(config(tmp_path, receive={"network_s": 1, "acse_s": 1})) as (server, incoming):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(content)
            assert store(server.port, files) == [0, 0]  # others are served meanwhile
            while client_is_open(client):
                pass
        assert len(received(incoming)) == 2


def client_is_open(client: socket.socket) -> bool:
    """Whether more comes from the server. It must close the connection before the time limit of the socket."""
    try:
        return bool(client.recv(4096))
    except ConnectionError:
        return False


def test_slow_clients_block_nobody_and_are_cut_off(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """A packet that comes byte by byte has one time limit, however often a byte arrives."""
    files = series(tmp_path / "in")
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client:
            client.sendall(b"\x01\x00\x00\x00\x10\x00")
            while not over.wait(0.2):
                try:
                    client.sendall(b"\0")
                except OSError:
                    return

    with receiver(config(tmp_path, receive={"network_s": 2, "acse_s": 60})) as (server, incoming):
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        threads = [threading.Thread(target=drip, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        assert store(server.port, files) == [0, 0]
        for thread in threads:
            thread.join(30)
        slow = sum("too slow" in r.message for r in said.records if r.name == node_log.LOG.name)
        over.set()
        assert len(received(incoming)) == 2
    assert slow == 10


def test_many_associations_at_once(tmp_path: Path) -> None:
    """40 senders, of which 10 at a time are served; a rejected one tries again."""
    folders = [series(tmp_path / str(k), seed=k) for k in range(40)]
    found: list[list[int | None]] = []

    def send(files: list[Path]) -> None:
        for _ in range(200):
            association = associate(server.port)
            if association.is_established:
                found.append([association.send_c_store(dcmread(f)).get("Status") for f in files])
                association.release()
                return
            time.sleep(0.1)

    with receiver(config(tmp_path, receive={"max_associations": 10})) as (server, incoming):
        threads = [threading.Thread(target=send, args=(files,)) for files in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert found == [[0] * SHAPE[0]] * 40
        assert len(received(incoming)) == 40 * SHAPE[0]
        assert len(incoming.series()) == 40


def test_further_connections_are_closed_at_once(tmp_path: Path) -> None:
    with receiver(config(tmp_path, receive={"max_associations": 2, "acse_s": 30})) as (server, _):
        clients = [socket.create_connection(("127.0.0.1", server.port), timeout=15) for _ in range(12)]
        time.sleep(1)
        assert server.connections == 6
        closed = 0
        for client in clients:
            client.settimeout(0.2)
            try:
                closed += client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed += 1
            finally:
                client.close()
        assert closed >= 5


def test_an_abort_in_the_middle_of_an_object_leaves_nothing(tmp_path: Path) -> None:
    content, uid = encoded(series(tmp_path / "in", shape=(1, 400, 400))[0])
    with receiver(config(tmp_path)) as (server, incoming):
        for _ in range(5):
            association = associate(server.port)
            sender = threading.Thread(
                target=lambda a=association: store_bytes(a, content, CTImageStorage, uid, EXPLICIT), daemon=True
            )
            sender.start()
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.5)
        assert store(server.port, series(tmp_path / "good", seed=1)) == [0, 0]
        assert {str(dcmread(f).SOPInstanceUID) for f in received(incoming)} - {uid} != set()


def test_a_hostile_name_leads_nowhere(tmp_path: Path) -> None:
    """UIDs that are paths, or no UIDs at all."""
    for key in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        for value in ("../../etc/passwd", "1.2/3", "", "1." * 40):
            dataset = dcmread(series(tmp_path / f"{key}", shape=(1, 24, 24))[0])
            dataset[key] = type(dataset[key])(dataset[key].tag, "LO", value)
            content = as_bytes(dataset)
            with receiver(config(tmp_path)) as (server, incoming):
                association = associate(server.port)
                instance = "1.2.3" if key == "SOPInstanceUID" else str(dataset.SOPInstanceUID)
                status = store_bytes(association, content, CTImageStorage, instance, EXPLICIT)
                association.release()
                assert status == NOT_UNDERSTOOD
                assert received(incoming) == []


def as_bytes(dataset: Dataset) -> bytes:
    from io import BytesIO

    from pydicom import dcmwrite

    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    content = buffer.getvalue()
    length = struct.unpack("<I", content[140:144])[0]
    return content[144 + length :]


def test_connections_that_say_nothing_take_nobodys_place(tmp_path: Path) -> None:
    """100 of them, more than are kept; each new association gets the place of the oldest."""
    with receiver(config(tmp_path, receive={"max_associations": 2, "acse_s": 60})) as (server, incoming):
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=15) for _ in range(100)]
        for k in range(5):
            assert store(server.port, series(tmp_path / str(k), seed=k)) == [0, 0]
        assert server.connections <= 6
        for client in silent:
            client.close()
        wait_for(lambda: server.connections == 0, 20)
        assert len(received(incoming)) == 10


def test_associations_beyond_the_limit_are_rejected(tmp_path: Path) -> None:
    with receiver(config(tmp_path, receive={"max_associations": 2})) as (server, _):
        first, second = associate(server.port), associate(server.port)
        third = associate(server.port)
        assert (first.is_established, second.is_established, third.is_rejected) == (True, True, True)
        first.release()
        wait_for(lambda: server.connections == 1, 20)
        fourth = associate(server.port)
        assert fourth.is_established
        for each in (second, fourth):
            each.release()


def test_noise_leaves_no_thread_behind(tmp_path: Path) -> None:
    """Neither the end of a connection nor a wrong packet waits for `acse_s`."""
    with receiver(config(tmp_path, receive={"acse_s": 60, "network_s": 60})) as (server, _):
        for content in (b"", b"\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x04\x00\x00\x00\x00\x02ab", b"\x07" * 10):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
                    client.sendall(content)
        wait_for(lambda: server.connections == 0, 20)
        assert associate(server.port).is_established
