"""docs/node.md and deploy/: the commands work in the order of the page, and the examples are right."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import blocks, commands
from node_case import ROOT, Process, free_port, series, settings, wait_for, write_config

from uhrct.node.config import Match, NodeConfig, Receive, Rule, load_config

PAGE = (ROOT / "docs" / "node.md").read_text()
EXAMPLES = [yaml.safe_load("\n".join(lines)) for _, language, lines in blocks(PAGE) if language == "yaml"]


def run(words: list[str], folder: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.slow
def test_the_page_works(tmp_path: Path) -> None:
    ports = {"11112": str(free_port()), "4242": str(free_port())}
    series(tmp_path / "study")
    raw: dict[str, Any] = EXAMPLES[0]
    raw["receive"]["port"], raw["peers"]["PACS"]["port"] = int(ports["11112"]), int(ports["4242"])
    path = write_config(tmp_path, raw | {"quiet_s": 1})
    page = commands(PAGE[PAGE.index("## Start") : PAGE.index("## Orthanc")])
    listed = [[ports.get(word, word) for word in command.words] for command in page]
    [pacs] = [words for words in listed if "storescp" in words]
    [info] = [words for words in listed if words[1] == "info"]
    said: list[str] = []
    node = None
    archive = subprocess.Popen([sys.executable, *pacs[1:]], cwd=tmp_path)
    try:
        wait_for(lambda: answers(int(ports["4242"])))
        for program, *words in listed:
            if words[:1] == ["node"] and len(words) == 2:
                node = node or Process(path)
            elif program == "python" and "storescp" not in words:
                run([sys.executable, *words], tmp_path)
            elif words[0] == "node" and "--retry-failed" not in words:
                said.append(run([sys.executable, "-m", "uhrct", *words], tmp_path))
        assert node is not None
        wait_for(lambda: "result sent to PACS" in node.text)
        for part in ("the first image has arrived", "waiting by rule all", "is being computed"):
            assert part in node.text
        assert len(list((tmp_path / "received").iterdir())) == 2
        assert "RESEARCH" in run([sys.executable, "-m", "uhrct", *info[1:]], tmp_path)
    finally:
        archive.kill()
        archive.wait()
        if node is not None:
            assert node.stop() == 0
    checked, status = said
    assert f"PACS (PACS at 127.0.0.1:{ports['4242']}): answers" in checked
    assert "0 series" in status


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_peer_that_does_not_answer_is_told_by_the_check(tmp_path: Path) -> None:
    path = write_config(tmp_path, settings(tmp_path))
    command = [sys.executable, "-m", "uhrct", "node", str(path), "--check"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert "PACS (PACS at 127.0.0.1:1): no connection" in found.stdout
    [line] = found.stderr.splitlines()
    assert line.startswith(f"uhrct: {path}: not every peer answers")
    assert f"folder {tmp_path / 'node'}: does not exist yet" in found.stdout
    assert not (tmp_path / "node").exists()


def uncommented(text: str) -> str:
    """The example with the keys that are commented out."""
    return re.sub(r"^(\s*)# (\s*(?:- )?\w+:.*)$", r"\1\2", text, flags=re.M)


@pytest.mark.parametrize("name", ["node.yaml", "node-compose.yaml"])
def test_the_examples_are_right(name: str) -> None:
    node = load_config(ROOT / "deploy" / name)
    assert node.rules[-1].send_to == (*node.peers,)[:1]
    if name == "node.yaml":
        assert node.receive.address == "127.0.0.1"


def test_the_example_has_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is commented out is right, and nothing is left out."""
    monkeypatch.setenv("UHRCT_STOW_TOKEN", "a token of sixteen characters")
    for name in ("orthanc-token.txt", "archive-token.txt"):
        (tmp_path / name).write_text("a token of sixteen characters")
    text = uncommented((ROOT / "deploy" / "node.yaml").read_text())
    (tmp_path / "node.yaml").write_text(text)
    node = load_config(tmp_path / "node.yaml")
    raw = yaml.safe_load(text)
    assert set(raw) == set(NodeConfig.model_fields)
    assert set(raw["receive"]) == set(Receive.model_fields)
    used = {key for rule in (*raw["rules"], *raw["never"]) for key in rule}
    assert used == set(Rule.model_fields) - {"modality"}
    assert set(Match.model_fields) < set(Rule.model_fields)
    assert node.receive.tls is not None
    assert node.stow is not None
    assert [poll.days for poll in node.poll] == [7]
    assert set(node.peers) == {"PACS", "ARCHIVE"}


def test_every_key_is_on_the_page() -> None:
    for kind in (NodeConfig, Receive, Match):
        for key in kind.model_fields:
            assert f"`{key}" in PAGE or f"{key}:" in PAGE, key


def test_containers_and_units_are_not_root_and_not_open() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    docker = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "\nUSER uhrct\n" in docker
    copied = [w for line in docker.splitlines() if line.startswith("COPY") for w in line.split()[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    unit = (ROOT / "deploy" / "uhrct-node.service").read_text()
    assert "\nUser=uhrct\n" in unit
    command = unit.split("ExecStart=")[1].split("\n")[0].split()
    assert command[1:] == ["node", "/etc/uhrct/node.yaml"]


def test_the_poll_example_is_right(tmp_path: Path) -> None:
    raw = settings(tmp_path) | EXAMPLES[1]
    assert load_config(write_config(tmp_path, raw)).poll[0].url == "http://127.0.0.1:8042/dicom-web"
