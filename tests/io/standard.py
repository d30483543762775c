"""The DICOM standard as dicom-validator wants it, made on the spot from tables that are installed with the tests.

dicom-validator holds no rules: it downloads the standard's DocBook on first use, which a test must not do. The PyPI
package `dicom-standard` (Innolitics, MIT) holds the same tables of PS3.3 as JSON, of April 2020: modules of each
object, functional groups, attributes with their types, and the prose beside them, in which conditions and enumerated
values stand. highdicom holds modules, attributes and types of a newer edition without prose; where both have a
word, the newer one counts. Here they get the form of dicom-validator's own cache, and its own parsers read the prose.

What this can't judge: conditions, values and functional groups newer than April 2020; whether a functional group must
stand in the shared or in the per-frame sequence, and values listed in a section of their own (both in no table).
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from importlib.metadata import PackageNotFoundError, files
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from pydicom import config, datadict

#: The objects that are read and written here.
KINDS = ("CT Image", "Enhanced CT Image", "Legacy Converted Enhanced CT Image", "Parametric Map", "Segmentation")
FUNCTIONAL_GROUPS = ("(5200,9229)", "(5200,9230)")

Rows = list[dict[str, Any]]


def complaints(paths: list[Path]) -> set[str]:
    """What dicom-validator has against these files: tags and codes, without values or file names."""
    pytest.importorskip("dicom_validator", reason="dicom-validator is not installed (pip install dicom-validator)")
    pytest.importorskip("highdicom", reason="highdicom is not installed (pip install 'uhrct[dicom]')")
    from dicom_validator.validator.dicom_file_validator import DicomFileValidator

    mode = config.settings.reading_validation_mode  # the validator sets this for the whole process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on values of the source
            validator = DicomFileValidator(_info(), error_handler=_Silent())
            results = [result for path in paths for result in validator.validate_file(str(path)).values()]
    finally:
        config.settings.reading_validation_mode = mode
    out = set()
    for result in results:
        assert result.status.name in ("Passed", "Failed"), f"not judged: {result.status.name}"
        for errors in result.module_errors.values():
            out |= {f"{tag} {datadict.keyword_for_tag(tag.tag)}: {error.code.name}" for tag, error in errors.items()}
    return out


class _Silent:
    """Results are read from what `validate_file` returns; the default handler prints them."""

    def handle_validation_start(self, result: object) -> None: ...

    def handle_validation_result(self, result: object) -> None: ...


@functools.cache
def _info() -> Any:
    from dicom_validator.spec_reader.serializer import DefinitionEncoder
    from dicom_validator.validator.dicom_info import DicomInfo

    dictionary = {
        f"({tag >> 16:04X},{tag & 0xFFFF:04X})": {"name": name, "vr": vr, "vm": vm, "prop": retired}
        for tag, (vr, vm, name, retired, _) in datadict.DicomDictionary.items()
    }
    prose = _Prose(dictionary)
    ids = {row["name"]: row["id"] for row in _table("ciods") if row["name"] in KINDS}
    macros, parts = _grouped("ciod_to_fg_macros", "ciodId"), _grouped("ciod_to_modules", "ciodId")
    iods = {
        row["id"]: {
            "title": row["ciod"],
            "modules": {
                part["moduleId"]: prose.usage(part, "moduleId")
                for part in _newer_modules(parts[ids[row["ciod"]]], ids[row["ciod"]])
            },
            "group_macros": {
                part["macroId"]: prose.usage(part, "macroId") for part in macros.get(ids[row["ciod"]], [])
            },
        }
        for row in _table("sops")
        if row["ciod"] in ids
    }
    used = {part["ref"] for iod in iods.values() for kind in ("modules", "group_macros") for part in iod[kind].values()}
    of_macros, of_modules = _grouped("macro_to_attributes", "macroId"), _grouped("module_to_attributes", "moduleId")
    modules = {}
    for ref in used:
        kind, name = ref.split("/")
        rows = of_macros[name] if kind == "macro" else _newer_attributes(of_modules.get(name, []), name)
        modules[ref] = prose.attributes(rows)
    # There and back through JSON: the validator's cache, and what it reads, hold conditions as plain dictionaries.
    return DicomInfo(*json.loads(json.dumps([dictionary, iods, modules], cls=DefinitionEncoder)))


def _newer_modules(old: Rows, iod: str) -> Rows:
    """The modules of an object in highdicom's edition, conditions as they were in 2020."""
    from highdicom._standard_utils import get_iod_module_map

    prose = {row["moduleId"]: row["conditionalStatement"] for row in old}
    newer = [
        # highdicom's own name where it has put the functional groups into their module; here they are apart
        {"moduleId": re.sub("^.*-(?=multi-frame-functional-groups$)", "", row["key"]), "usage": row["usage"]}
        for row in get_iod_module_map()[iod]
    ]
    return [row | {"conditionalStatement": prose.get(row["moduleId"])} for row in newer]


def _newer_attributes(old: Rows, module: str) -> Rows:
    """The attributes of a module in both editions; types of highdicom's, prose of 2020."""
    from highdicom._standard_utils import get_module_attribute_map

    rows = {row["path"]: row for row in old}
    for row in get_module_attribute_map()[module]:
        tags = [datadict.tag_for_keyword(keyword) for keyword in (*row["path"], row["keyword"])]
        if None not in tags:  # repeating groups have no tag of their own, and have not changed
            path = ":".join([module, *(f"{tag:08x}" for tag in tags)])
            rows[path] = {"path": path, "description": "<td/>"} | rows.get(path, {}) | {"type": row["type"]}
    return list(rows.values())


class _Prose:
    """Attributes, conditions and enumerated values, from rows of the tables."""

    def __init__(self, dictionary: dict[str, dict[str, str]]) -> None:
        from dicom_validator.spec_reader.condition_parser import ConditionParser
        from dicom_validator.spec_reader.enum_parser import EnumParser

        self._dictionary = dictionary
        self._conditions = ConditionParser(dictionary)
        self._values = EnumParser(lambda section: None, self._conditions)

    def usage(self, row: dict[str, Any], key: str) -> dict[str, Any]:
        """A module of an object, or a macro of its functional groups."""
        out = {"ref": f"{key.removesuffix('Id')}/{row[key]}", "use": row["usage"]}
        if row["conditionalStatement"]:
            out["cond"] = self._conditions.parse(f"{row['usage']} - {_plain(row['conditionalStatement'])}")
        return out

    def attributes(self, rows: Rows) -> dict[str, Any]:
        """The attributes of a module by tag, those inside a sequence under its "items"."""
        out: dict[str, Any] = {}
        for row in rows:
            level = out
            *parents, own = [f"({tag[:4]},{tag[4:]})".upper().replace("X", "x") for tag in row["path"].split(":")[1:]]
            for parent in parents:
                level = level[parent].setdefault("items", {})
            level[own] = self._attribute(own, row)
            if own in FUNCTIONAL_GROUPS:
                level[own]["items"] = {"include": [{"ref": "FuncGroup"}]}
        return out

    def _attribute(self, tag: str, row: dict[str, Any]) -> dict[str, Any]:
        from dicom_validator.spec_reader.condition import ConditionType

        known = self._dictionary.get(tag, {"name": "", "vr": ""})
        out = {"name": known["name"], "type": row["type"]}
        cell = _cell(row["description"])
        if row["type"] in ("1C", "2C", "3"):
            condition = self._conditions.parse(" ".join(text.strip() for text in cell.itertext() if text.strip()))
            if condition.type != ConditionType.UserDefined:
                out["cond"] = condition
        values = [value for value in self._values.parse(cell, known["vr"]) if value.pop("tag", tag) == tag]
        if values:
            out["enums"] = values
        return out


def _cell(html: str) -> Any:
    """A cell of a table in HTML, with its lists of values as the DocBook elements they were made from."""
    from dicom_validator.spec_reader.enum_parser import EnumParser
    from lxml import etree
    from lxml.html import fragment_fromstring

    cell = fragment_fromstring(_plain(html).replace("<td", "<div").replace("</td>", "</div>"))
    docbook = EnumParser.docbook_ns
    for title in cell.xpath("./div[dl]/p/strong"):
        values = etree.SubElement(cell, f"{docbook}variablelist")
        etree.SubElement(values, f"{docbook}title").text = title.text
        for term in title.xpath("../../dl/dt"):
            entry = etree.SubElement(values, f"{docbook}varlistentry")
            etree.SubElement(entry, f"{docbook}term").text = term.text_content().strip()
    return cell


def _plain(text: str) -> str:
    return text.replace("\xa0", " ").replace("–", "-")


def _grouped(name: str, key: str) -> dict[str, Rows]:
    rows = sorted(_table(name), key=lambda row: row[key])  # stable: order within a group is the standard's
    return {group: list(members) for group, members in groupby(rows, key=lambda row: row[key])}


def _table(name: str) -> Rows:
    try:
        listed = files("dicom-standard") or []
    except PackageNotFoundError:
        pytest.skip("the tables of the standard are not installed (pip install dicom-standard)")
    return json.loads(Path(str(next(f for f in listed if f.name == f"{name}.json").locate())).read_text())
