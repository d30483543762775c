"""Which series a node processes, and what it says about a wrong configuration."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ct_files import make_series
from node_case import config, settings, write_config
from pydicom import Dataset, dcmread

from uhrct.core.errors import UhrctError
from uhrct.io import Derivation, open_writer, read
from uhrct.node.check import check_places
from uhrct.node.config import load_config
from uhrct.node.rules import SeriesFacts, decide, facts_of, facts_of_files
from uhrct.node.workers import node_lock

CHEST = SeriesFacts("CT", "B70f", 1.0, "Thorax lung", "SIEMENS", "CHEST")


def rule(name: str, **conditions: Any) -> dict[str, Any]:
    return {"name": name, "send_to": "PACS"} | conditions


@pytest.mark.parametrize(
    ("conditions", "fits"),
    [
        ({}, True),
        ({"kernel": "B7*"}, True),
        ({"kernel": ["B30f", "b70F"]}, True),
        ({"kernel": "B7"}, False),  # a pattern is for the whole text
        ({"slice_thickness_mm": [1, 1]}, True),
        ({"slice_thickness_mm": [1.01, 5]}, False),
        ({"description": "*LUNG*"}, True),
        ({"description": "*lung*", "manufacturer": "GE*"}, False),
        ({"body_part": "CHEST", "manufacturer": "siemens*"}, True),
    ],
)
def test_all_conditions_of_a_rule_must_hold(tmp_path: Path, conditions: dict[str, Any], fits: bool) -> None:
    found = decide(CHEST, config(tmp_path, rules=[rule("one", **conditions)]))
    assert (found.rule is not None) == fits


def test_the_first_rule_that_fits_decides_and_never_comes_before_all(tmp_path: Path) -> None:
    rules = [rule("thin", slice_thickness_mm=[0, 2]), rule("rest")]
    node = config(tmp_path, rules=rules, never=[{"description": "*topogram*"}, {"kernel": "B1*"}])
    names = [
        decide(facts, node).rule.name  # type: ignore[union-attr]
        for facts in (CHEST, SeriesFacts("CT", slice_thickness_mm=5), SeriesFacts("CT"))
    ]
    assert names == ["thin", "rest", "rest"]
    assert decide(SeriesFacts("CT", description="Topogram 0.6"), node).reason == "listed under never"
    assert decide(SeriesFacts("CT", "B19"), node).rule is None
    assert decide(SeriesFacts("MR"), node).reason == "no CT"
    assert decide(SeriesFacts("CT", localizer=True), node).reason == "a localizer"


def test_derived_series_need_a_rule_that_says_so_and_results_of_uhrct_have_none(tmp_path: Path) -> None:
    node = config(tmp_path, rules=[rule("one")])
    derived = config(tmp_path, rules=[rule("one", derived=True)])
    reformatted = SeriesFacts("CT", derived=True)
    assert decide(reformatted, node).reason == "a derived series; its rule needs derived: true"
    assert decide(reformatted, derived).rule is not None
    assert decide(SeriesFacts("CT", derived=True, ours=True), derived).reason == "a result of uhrct"


def test_facts_come_from_the_headers(tmp_path: Path) -> None:
    make_series(tmp_path / "ct", edit=lambda k, ds: setattr(ds, "ConvolutionKernel", ["B70f", "3"]))
    facts = facts_of_files(sorted((tmp_path / "ct").iterdir()))
    assert facts is not None
    assert (facts.modality, facts.kernel, facts.slice_thickness_mm) == ("CT", "B70f/3", 3.0)
    assert (facts.manufacturer, facts.description, facts.body_part) == ("ACME", "CHEST 3", "")
    assert not facts.derived
    assert not facts.ours


def test_a_localizer_in_front_does_not_speak_for_the_series(tmp_path: Path) -> None:
    make_series(
        tmp_path / "ct",
        edit=lambda k, ds: (k == 4 and setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])) or None,
    )
    files = sorted((tmp_path / "ct").iterdir())
    assert not facts_of_files(files).localizer  # type: ignore[union-attr]
    assert facts_of_files(files[:1]).localizer  # type: ignore[union-attr]


def test_what_uhrct_wrote_is_known_also_after_another_program_has_changed_it(tmp_path: Path) -> None:
    make_series(tmp_path / "ct")
    source = read(tmp_path / "ct")
    derivation = Derivation("something else", key="k", suffix="x2")
    with open_writer(tmp_path / "out", source.grid, dtype="int16", source=source, derivation=derivation) as writer:
        writer.write(source.hu)
    header = dcmread(next((tmp_path / "out").iterdir()))
    assert facts_of(header).ours
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.file_meta.ImplementationClassUID = "1.2.3"
    del header.DerivationDescription
    assert facts_of(header).ours
    del header.ContributingEquipmentSequence
    assert not facts_of(header).ours


def test_damaged_values_count_as_missing() -> None:
    header = Dataset()
    header.Modality = "CT"
    header.add_new("SliceThickness", "DS", "")
    header.add_new(0x00180015, "SQ", [])  # BodyPartExamined as a sequence
    facts = facts_of(header)
    assert (facts.modality, facts.slice_thickness_mm) == ("CT", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quiet": 3}, "unknown setting quiet; known: ae_title"),
        ({"receive": {"callers": ["A"], "pport": 1}}, "unknown setting receive.pport"),
        ({"receive": {"callers": []}}, "receive.callers"),
        ({"ae_title": "LONGER THAN 16 CHARACTERS"}, "ae_title"),
        ({"ae_title": "A\\B"}, "ae_title"),
        ({"receive": {"caller": ["A"]}}, "unknown setting receive.caller; known: acse_s"),
        ({"receive": {}}, "setting receive.callers is missing"),
        ({"poll": {"url": "http://a"}}, "should be a list"),
        ({"poll": [{"urls": "http://a"}]}, "unknown setting poll.0.urls; known: ca, days"),
        ({"never": [{"descriptions": "a"}]}, "unknown setting never.0.descriptions; known: body_part, desc"),
        ({"peers": {"url": {"aetitle": "A"}}}, "unknown setting peers.url.aetitle; known: ae_title, ca"),
        ({"rules": [rule("one", kernels="B")]}, "unknown setting rules.0.kernels; known: body_part"),
        ({"rules": [rule("one", slice_thickness_mm=[3, 1])]}, "the first number is larger than the second"),
        ({"rules": [rule("one", settings={"scale": 3})]}, "rule one: no weights serve scale x3"),
        ({"rules": [rule("one", settings={"device": "cuda:99"})]}, "rule one: device cuda:99: this machine has"),
        ({"rules": [rule("one", modality="MR")]}, "modality"),
        ({"rules": [rule("one", send_to="ELSEWHERE")]}, "rule one sends to ELSEWHERE, which is no peer; known: PACS"),
        ({"rules": [rule("one"), rule("one")]}, "two rules are called one"),
        ({"rules": [rule("one", settings={"scael": 4})]}, "rule one: there is no setting `scael`; did you mean"),
        ({"rules": [rule("one", settings={"denoise": 3})]}, "rule one: `denoise`"),
        ({"rules": [rule("one", settings={"interval": True})]}, "settings has interval, which a node does not have"),
        ({"rules": []}, "rules"),
        ({"peers": {"PACS": {"host": "a", "port": 1}}}, "a peer needs ae_title, host and port, or url"),
        ({"peers": {"PACS": {"url": "ftp://a"}}}, "url"),
        ({"peers": {"PACS": {"url": "http://user:secret@host/"}}}, "url"),
        ({"stow": {}}, "stow needs token_file or token_env"),
        ({"stow": {"token_env": "UHRCT_TEST_NO_SUCH_TOKEN"}}, "stow: the token is missing"),
        ({"stow": {"token_file": "missing.txt"}}, "missing.txt: cannot be read"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UhrctError) as caught:
        load_config(write_config(tmp_path, settings(tmp_path) | change))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "node.yaml"))


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = write_config(tmp_path, settings(tmp_path))
    path.write_text(path.read_text() + "folder: other\n")
    with pytest.raises(UhrctError, match=r"node\.yaml: folder is given twice \(line \d+\)"):
        load_config(path)


def test_the_check_tries_folder_and_ports(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        taken = config(tmp_path, receive={"port": port})
        with pytest.raises(UhrctError, match=f"receive: 127.0.0.1:{port} cannot be used"):
            check_places(taken)
        with node_lock(taken.outgoing):  # it is this node that has the port
            assert "a node runs on this folder" in check_places(taken)[-1]
    assert check_places(taken) == []
    (tmp_path / "file").write_text("")
    other = [taken.model_copy(update={"folder": tmp_path / name}) for name in ("file", "new")]
    with pytest.raises(UhrctError, match="is a file"):
        check_places(other[0])
    [note] = check_places(other[1])
    assert "does not exist yet" in note
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00", "a: " + "[" * 5000, "!!python/object:os.system {}"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UhrctError, match=r"a\.yaml: (is not YAML|holds no settings)"):
        load_config(tmp_path / "a.yaml")


def test_paths_are_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "token.txt").write_text("a token of sixteen characters\n")
    path = write_config(tmp_path / "etc", settings(tmp_path) | {"folder": "data", "stow": {"token_file": "token.txt"}})
    monkeypatch.chdir(tmp_path)
    node = load_config(path)
    assert node.incoming == tmp_path / "etc" / "data" / "incoming"
    assert node.stow is not None
    assert node.stow.token() == "a token of sixteen characters"
