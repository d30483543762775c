"""`uhrct --xml`: describe `uhrct upscale` as a command-line module of 3D Slicer (Slicer Execution Model).

https://www.slicer.org/wiki/Documentation/Nightly/Developers/SlicerExecutionModel
"""

from __future__ import annotations

from enum import Enum
from typing import Any
from xml.etree import ElementTree

import typer

from uhrct.cli.upscale import Consistency, Quality, upscale
from uhrct.core.version import __version__

#: Slicer calls a program without the name of a command. This flag, which the XML always sets, tells such a call.
PROGRESS_FLAG = "--filter-progress"
SCALES = ("2", "4", "5x1x1", "5x2x2")
#: groups of parameters: label, advanced, members as (option, tag, label, values or range)
GROUPS: tuple[tuple[str, bool, tuple[tuple[str, str, str, Any], ...]], ...] = (
    (
        "Super-resolution",
        False,
        (
            ("--scale", "string-enumeration", "Scale", SCALES),
            ("--quality", "string-enumeration", "Quality", tuple(Quality)),
            ("--denoise", "double", "Noise to remove", (0, 1, 0.05)),
        ),
    ),
    (
        "Advanced",
        True,
        (
            ("--consistency", "string-enumeration", "Agreement with the scan", tuple(Consistency)),
            ("--device", "string", "Device", None),
            ("--tile", "integer", "Tile", (48, 4096, 16)),
            ("--overwrite", "boolean", "Replace the output", None),
            (PROGRESS_FLAG, "boolean", "Report progress", None),
        ),
    ),
)
#: where the description differs from the default of the program
DEFAULTS = {"--scale": "2", "--denoise": "0.75", "--overwrite": "true", PROGRESS_FLAG: "true"}
#: no choice of the user
HIDDEN = ("--overwrite", PROGRESS_FLAG)


def described() -> str:
    """The XML description of `uhrct upscale`."""
    made = typer.Typer()
    made.command()(upscale)
    options = {name: p for p in typer.main.get_command(made).params for name in p.opts}
    root = ElementTree.Element("executable")
    for tag, text in (
        ("category", "Filtering"),
        ("title", "CT super-resolution (uhrct)"),
        ("description", "Finer voxels for a CT, in HU. Research use only; not a medical device."),
        ("version", __version__),
        ("license", "Apache-2.0"),
        ("contributor", "the authors of uhrct"),
    ):
        ElementTree.SubElement(root, tag).text = text
    group = _group(root, "Volumes", advanced=False)
    for index, (name, label, channel) in enumerate(
        (("input", "Input volume", "input"), ("output", "Output volume", "output"))
    ):
        image = ElementTree.SubElement(group, "image", type="scalar", fileExtensions=".nrrd")
        for tag, text in (("name", name), ("label", label), ("channel", channel), ("index", str(index))):
            ElementTree.SubElement(image, tag).text = text
        ElementTree.SubElement(image, "description").text = f"A CT in HU; {label.lower()}."
    for label, advanced, members in GROUPS:
        group = _group(root, label, advanced)
        for flag, tag, name, values in members:
            _parameter(group, options[flag], flag, tag, name, values)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def with_command(arguments: list[str]) -> list[str]:
    """The arguments of a call by Slicer, completed by the command that it means.

    Example
    -------
    >>> with_command(["--scale", "2", "--filter-progress", "in.nrrd", "out.nrrd"])[0]
    'upscale'
    >>> with_command(["info", "ct"])
    ['info', 'ct']
    """
    by_slicer = bool(arguments) and arguments[0].startswith("-") and PROGRESS_FLAG in arguments
    return ["upscale", *arguments] if by_slicer else arguments


def _group(root: ElementTree.Element, label: str, advanced: bool) -> ElementTree.Element:
    group = ElementTree.SubElement(root, "parameters", {"advanced": "true"} if advanced else {})
    ElementTree.SubElement(group, "label").text = label
    ElementTree.SubElement(group, "description").text = label
    return group


def _parameter(group: ElementTree.Element, option: Any, flag: str, tag: str, label: str, values: Any) -> None:
    made = ElementTree.SubElement(group, tag, {"hidden": "true"} if flag in HIDDEN else {})
    default = option.default.value if isinstance(option.default, Enum) else option.default
    for name, text in (
        ("name", flag.strip("-").replace("-", "_")),
        ("label", label),
        ("longflag", flag),
        ("description", " ".join((option.help or "").split())),
        ("default", DEFAULTS.get(flag, str(default))),
    ):
        ElementTree.SubElement(made, name).text = text
    if tag == "string-enumeration":
        for value in values:
            ElementTree.SubElement(made, "element").text = str(value)
    elif values is not None:
        limits = ElementTree.SubElement(made, "constraints")
        for name, value in zip(("minimum", "maximum", "step"), values, strict=True):
            ElementTree.SubElement(limits, name).text = str(value)
