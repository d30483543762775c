"""Remove the identity of the patient from source headers: basic profile of PS3.15 annex E, as a list of what stays.

Only the attributes of `keep_list.py` stay, with values that their value representation allows. UIDs and the pseudonym
of the patient are computed from the old ones and a secret key. Without the key nobody can check whether an anonymous
file belongs to a known UID or patient number.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Any

from pydicom import DataElement, Dataset, Sequence
from pydicom.charset import python_encoding
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VM
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID_dictionary, generate_uid

from uhrct.core.version import __version__
from uhrct.io.dicom.header import ENHANCED_CT, quiet
from uhrct.io.dicom.keep_list import EMPTIED, KEEP
from uhrct.io.dicom.regions import ANYWHERE, REGIONS

DUMMY_SERIAL_NUMBER = "ANONYMIZED"


def anonymized(headers: list[Dataset], key: bytes) -> list[Dataset]:
    """Copies of `headers` without patient, staff, place, date and device.

    Voxels are not changed: burnt-in text and recognisable anatomy remain. The basic profile covers attributes only.

    Parameters
    ----------
    key : bytes
        Secret. The same key gives the same UIDs and pseudonyms, so that outputs of one study stay together.
    """
    with disable_value_validation(), quiet():
        return [_anonymized(header, key) for header in headers]


def new_uid(uid: str, key: bytes) -> str:
    """The UID that replaces `uid` in anonymous files. UIDs of the standard itself identify nobody and stay.

    >>> new_uid("1.2.3", b"a") == new_uid("1.2.3", b"a") != new_uid("1.2.3", b"b"), new_uid("1.2.840.10008.1.2", b"a")
    (True, '1.2.840.10008.1.2')
    """
    return uid if not uid or uid in UID_dictionary else generate_uid(entropy_srcs=[_keyed("uid", uid, key)])


def _keyed(what: str, value: str, key: bytes) -> str:
    return hmac.digest(key, f"{what}\n{value}".encode("utf-8", "surrogateescape"), "sha256").hex()


def _anonymized(header: Dataset, key: bytes) -> Dataset:
    out = _kept(header, key)
    implicit, little_endian = header.original_encoding
    out.set_original_encoding(implicit, little_endian, header.original_character_set)
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", "")
    for keyword in EMPTIED:
        setattr(out, keyword, "")
    if out.get("SOPClassUID") in ENHANCED_CT:
        out.DeviceSerialNumber = DUMMY_SERIAL_NUMBER
        out.AcquisitionContextSequence = Sequence()
    out.PatientName = out.PatientID = "ANON-" + _keyed("patient", _patient(header), key)[:16].upper()
    out.PatientIdentityRemoved = "YES"
    out.LongitudinalTemporalInformationModified = "REMOVED"
    out.DeidentificationMethod = f"uhrct {__version__}: PS3.15 basic profile, list of what is kept"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    out.DeidentificationMethodCodeSequence = Sequence([code])
    return out


def _patient(header: Dataset) -> str:
    """What identifies the patient at a site; the study if the file does not say."""
    number = str(header.get("PatientID") or "").strip()
    issuer = str(header.get("IssuerOfPatientID") or "").strip()
    return f"{number}\n{issuer}" if number else f"study\n{header.get('StudyInstanceUID', '')}"


def _kept(dataset: Dataset, key: bytes) -> Dataset:
    """The elements of a dataset or item that may stay, with new UIDs."""
    out = Dataset()
    for tag in dataset.keys():  # noqa: SIM118  (iteration over the dataset itself would parse all elements)
        if int(tag) in KEEP:
            element = _kept_element(dataset, tag, key)
            if element is not None:
                out.add(element)
    return out


def _kept_element(dataset: Dataset, tag: BaseTag, key: bytes) -> DataElement | None:
    """The element with a checked value; None if it must go."""
    try:
        element = dataset[tag]
        if element.VR not in KEEP[int(tag)]:
            return None
        if element.keyword == "AnatomicRegionSequence":
            return DataElement(tag, "SQ", Sequence([_region(element.value)]))
        if element.VR == "SQ":
            items = [_kept(item, key) for item in element.value]
            return DataElement(tag, "SQ", Sequence(items)) if any(len(item) for item in items) else None
        values = _values(element.value)
        if element.VR == "UI":
            renewed = [new_uid(str(uid), key) for uid in values]
            return DataElement(tag, "UI", renewed if len(renewed) > 1 else "".join(renewed))
        if element.keyword == "SpecificCharacterSet":
            return element if all(value in python_encoding for value in values) else None
        return element if _is_count(len(values), tag) and all(map(_CHECKS[element.VR], values)) else None
    except Exception:  # pydicom raises many types on values that do not fit; such values go
        return None


def _values(value: Any) -> list[Any]:
    if isinstance(value, MultiValue | list):
        return list(value)
    return [] if value is None else [value]


def _region(items: Sequence) -> Dataset:
    """The region of the body if uhrct knows its code, else the entire body. Other text in the item goes."""
    given = {(str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))) for item in items}
    known = [code for code in REGIONS.values() if code[:2] in given]
    out = Dataset()
    out.CodeValue, out.CodingSchemeDesignator, out.CodeMeaning = known[0] if known else ANYWHERE
    return out


def _is_count(count: int, tag: BaseTag) -> bool:
    """Whether the standard allows so many values: "1", "3", "1-n", "2-2n"."""
    least, _, most = dictionary_VM(tag).partition("-")
    return count == 0 or (count >= int(least) if "n" in most else int(least) <= count <= int(most or least))


def _is_code(value: Any) -> bool:
    return re.fullmatch(r"[A-Z0-9_ ]{0,16}", str(value)) is not None


def _is_number(value: Any) -> bool:
    """Numbers of a CT are small. The bytes of a text, read as a number, are not."""
    return value == "" or (isinstance(value, int | float) and abs(value) < 1e9)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


#: What a value of a listed attribute must be.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "CS": _is_code,
    **dict.fromkeys(("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD"), _is_number),
    **dict.fromkeys(("SH", "LO"), _is_text),
}
