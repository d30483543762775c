"""The server: who is let in, and that no request reaches the disk."""

import builtins
import http.client
import io
import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import nibabel
import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.viewer import server
from uhrct.viewer.page import PARTS
from uhrct.viewer.study import Study


def ask(address: str, path: str = "", method: str = "GET", **fields: str) -> tuple[int, bytes, dict[str, str]]:
    """A request as given: http.client changes neither path nor Host. `path` follows the token unless it is absolute."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.putrequest(method, path if path.startswith("/") else parts.path + path, skip_host="Host" in fields)
    for name, value in fields.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    connection.close()
    return found


def host(address: str) -> str:
    return urlsplit(address).netloc


def test_the_page_and_its_parts_are_served(address: str) -> None:
    status, page, headers = ask(address)
    assert status == 200
    assert b"not a medical device" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    for name in PARTS:
        assert ask(address, name)[0] == 200


def test_only_loopback_is_listened_to(address: str) -> None:
    assert urlsplit(address).hostname == "127.0.0.1"
    with pytest.raises(OSError):  # noqa: PT011
        http.client.HTTPConnection("127.0.0.2", urlsplit(address).port, timeout=5).connect()


def test_volumes_are_sent_exactly(address: str, study: Study) -> None:
    for number, pane in enumerate(study.panes):
        status, data, _ = ask(address, f"image/{number}")
        assert status == 200
        image = nibabel.Nifti1Image.from_bytes(data)
        assert np.array_equal(np.asanyarray(image.dataobj).transpose(2, 1, 0), pane.volume.hu)
        assert np.allclose(image.affine, pane.volume.affine, atol=1e-4)


def test_a_wrong_secret_is_refused(address: str) -> None:
    token = urlsplit(address).path
    for path in (
        "/",
        "",
        "//",
        "/view",
        "/wrong/",
        f"{token[:-2]}/",
        f"/x{token}",
        token[:-1],
        token.swapcase(),
        f"/{token}",
    ):
        status, body, _ = ask(address, path or "/")
        assert (status, body) == (403, b"refused\n"), path


def test_the_secret_is_another_one_each_time_and_long(address: str) -> None:
    assert len(urlsplit(address).path.strip("/")) >= 43


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", ""]
)
def test_a_wrong_host_is_refused(address: str, name: str) -> None:
    assert ask(address, Host=name)[0] == 421
    assert ask(address, f"{urlsplit(address).path}image/0", Host=name)[0] == 421


def test_right_hosts_are_let_in(address: str) -> None:
    port = urlsplit(address).port
    assert ask(address, Host=f"localhost:{port}")[0] == 200
    assert ask(address, Host=f"127.0.0.1:{port}", Origin=f"http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "file://"])
def test_a_wrong_origin_is_refused(address: str, origin: str) -> None:
    assert ask(address, "image/0", Origin=origin)[0] == 403
    assert ask(address, "image/0", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(address, "image/0", Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"])
def test_only_get_is_answered(address: str, method: str) -> None:
    assert ask(address, method=method)[0] == 405


TRICKS = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "image/../../../etc/passwd",
    "image/..%2f..%2fetc%2fpasswd",
    "image/%2e%2e/%2e%2e/etc/passwd",
    "image//etc/passwd",
    "image/file:///etc/passwd",
    "static/view.js",
    "view.js/../../__init__.py",
    "niivue.umd.js",
    "image/0%00.nii",
    "image/-1",
    "image/99",
    "image/1e3",
    "image/0?at=../../etc/passwd",
    "image/0?at=1,2",
    "image/0?at=" + "9" * 5000,
    "overlay/2",
    "docs",
    "openapi.json",
    "....//....//etc/passwd",
    "\\..\\..\\etc\\passwd",
]


def test_no_trick_with_paths_reaches_the_disk(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PARTS:  # parts of the page are read once, by fixed names
        ask(address, name)
    ask(address)
    opened: list[object] = []

    def watched(real):
        def call(path, *arguments, **options):
            opened.append(path)
            return real(path, *arguments, **options)

        return call

    # every way of the standard library to open a file by its name
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    for trick in TRICKS:
        status, body, _ = ask(address, trick)
        assert status in (403, 404, 422), (trick, status)
        assert b"root:" not in body
        assert b"import" not in body
    assert not [path for path in opened if "passwd" in str(path) or "uhrct" in str(path)]


def test_errors_carry_the_headers_too(address: str) -> None:
    for path in ("nothing", "/"):
        assert "content-security-policy" in ask(address, path)[2]


def test_boxes_are_cut_around_a_place_and_never_leave_the_volume(address: str, study: Study) -> None:
    for place in ("0,0,0", "7,63,79", "999999,999999,999999"):
        view = json.loads(ask(address, f"view?at={place}")[1])
        (z0, y0, x0), (z1, y1, x1) = view["region"]
        assert 0 <= z0 < z1 <= 8
        assert 0 <= y0 < y1 <= 64
        assert 0 <= x0 < x1 <= 80
        assert ask(address, f"image/1?at={place}")[0] == 200


def test_the_description_holds_no_names_of_files(address: str) -> None:
    text = ask(address, "view")[1].decode()
    assert "/" not in text.replace("n/a", "")
    assert {p["label"] for p in json.loads(text)["panes"]} == {"scan", "result", "truth"}


def test_a_port_in_use_is_one_line(address: str, study: Study) -> None:
    with pytest.raises(UhrctError, match=r"`port=\d+`: cannot be used"):
        server.serve(study, study.whole(), port=urlsplit(address).port, ready=lambda _: None)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, result: Volume) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UhrctError, match=r"uhrct\[view\]"):
        server.check_libraries()


def test_pages_start_without_torch() -> None:
    """It takes seconds to import, and shows nothing."""
    code = "import sys, uhrct.viewer.files, uhrct.viewer.server, uhrct.serve.serve; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr
