"""Remove the identity of the patient from source headers: basic profile of PS3.15 annex E.

The table of the profile comes from dicom-anonymizer (Kitware, MIT), which is generated from the standard. This module
adds: rules apply inside sequences too; new UIDs are a function of the old ones, so that all outputs of a study stay in
one study and a second run gives the same files; dates are removed instead of set to 1 January of year 1.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import generate_uid

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.source import EMPTY

EDITION = "dicomfields_2024b"
#: UIDs of the standard itself (classes, transfer syntaxes) identify nobody.
STANDARD = "1.2.840.10008."


def anonymized(headers: list[Dataset]) -> list[Dataset]:
    """Copies of `headers` without patient, staff, place, date and device.

    Voxels are not changed: burnt-in text and recognisable anatomy remain. The basic profile covers attributes only.

    Raises
    ------
    UhrctError
        If dicom-anonymizer is not installed.
    """
    rules, name = _rules()
    with disable_value_validation():
        return [_anonymized(header, rules, name) for header in headers]


def new_uid(uid: str) -> str:
    """The UID that replaces `uid` in anonymous files. The same `uid` always gives the same result.

    >>> new_uid("1.2.3") == new_uid("1.2.3") != new_uid("1.2.4"), new_uid("1.2.840.10008.1.2")
    (True, '1.2.840.10008.1.2')
    """
    return uid if not uid or uid.startswith(STANDARD) else generate_uid(entropy_srcs=["anonymous", uid])


def _rules() -> tuple[dict[Any, Callable[..., None]], str]:
    try:
        from dicomanonymizer import simpledicomanonymizer as library
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
    except ImportError:
        raise UhrctError("`anonymize` needs dicom-anonymizer: pip install 'uhrct[dicom]'") from None
    from importlib.metadata import version

    rules = dict(library.initialize_actions(EDITION))
    tags = dicom_anonymization_database_selector(EDITION)
    rules.update({tag: library.keep for tag in tags["U_TAGS"]})  # `new_uid` replaces these
    rules.update({tag: _remove for tag in tags["X_Z_U_STAR_TAGS"]})  # references to images outside the output
    return rules, f"dicom-anonymizer {version('dicom-anonymizer')}"


def _remove(dataset: Dataset, tag: tuple[int, int]) -> None:
    if tag in dataset:
        del dataset[tag]


def _anonymized(header: Dataset, rules: dict[Any, Callable[..., None]], name: str) -> Dataset:
    from dicomanonymizer import anonymize_dataset

    out = Dataset()
    implicit, little = header.original_encoding
    out.set_original_encoding(implicit, little, header.original_character_set)
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", "")
    tags = header.keys()
    for tag in tags:
        if not tag.is_private:
            out[tag] = copy.deepcopy(header.get_item(tag))
    out.remove_private_tags()  # those inside sequences
    for part in _parts(out):
        _renew_uids(part)
        anonymize_dataset(part, base_rules_gen=lambda: rules)
        _drop_dates(part)
    pseudonym = "ANON-" + hashlib.sha256(str(out.get("StudyInstanceUID", "")).encode()).hexdigest()[:10].upper()
    out.PatientName = out.PatientID = pseudonym
    out.PatientIdentityRemoved = "YES"
    out.LongitudinalTemporalInformationModified = "REMOVED"
    out.DeidentificationMethod = f"PS3.15 basic profile ({name})"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    out.DeidentificationMethodCodeSequence = Sequence([code])
    return out


def _parts(dataset: Dataset) -> Iterator[Dataset]:
    """`dataset` and, after the caller has processed it, all items that remain inside."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _parts(item)


def _renew_uids(dataset: Dataset) -> None:
    for element in dataset:
        if element.VR == "UI" and element.value and element.tag != 0x00080016:
            one = isinstance(element.value, str)
            element.value = new_uid(element.value) if one else [new_uid(uid) for uid in element.value]


def _drop_dates(dataset: Dataset) -> None:
    for element in list(dataset):
        if element.VR in ("DA", "TM", "DT"):
            if element.keyword in EMPTY:
                element.value = ""
            else:
                del dataset[element.tag]
