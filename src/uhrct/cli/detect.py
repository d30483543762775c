"""`uhrct detect`: nodules in the lungs of a chest CT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uhrct.cli.app import (
    ADVANCED,
    INPUT,
    NOTE,
    NOTES,
    OUTPUT,
    Anonymize,
    AnonymizeKey,
    Device,
    Input,
    InputSpacing,
    Json,
    Overwrite,
    Quiet,
    Series,
    Syntax,
    Untilt,
    dicom_options,
    note,
    print_table,
    read_input,
    say,
)
from uhrct.core.errors import UhrctError

if TYPE_CHECKING:
    from uhrct.tasks.nodule_network import NoduleNetwork

#: the name of a scan in a table if --anonymize is given
ANONYMOUS = "anonymous"
FILTER_ALONE = "the score is that of the filter alone; for networks see docs/nodules.md"


def detect(
    input: Input,
    csv: Annotated[
        Path | None,
        typer.Option(help="Also write the findings to this .csv file (columns of LUNA16).", rich_help_panel=OUTPUT),
    ] = None,
    sr: Annotated[
        Path | None,
        typer.Option(
            help="Also write the findings as a DICOM measurement report (TID 1500) to this .dcm file; for DICOM input.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
    least_score: Annotated[
        float | None,
        typer.Option(
            help="Leave out findings with a lower score, from 0 to 1. Default: 0.5 with a network, none without: "
            "the score of the filter alone is no probability.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="Largest number of findings, up to 300.", min=1)] = 20,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="annotations.csv of LUNA16. INPUT is then a folder of scans, and the FROC curve is printed. All "
            "findings count, whatever --least-score and --most are.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    excluded: Annotated[
        Path | None,
        typer.Option(
            help="annotations_excluded.csv of LUNA16: findings that are neither right nor wrong.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A nodule network: nodules-large or nodules-small, which are shipped, or a folder of your own. "
            "Default: the filter alone.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    device: Device = "auto",
    series: Series = None,
    input_spacing: InputSpacing = None,
    untilt: Untilt = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    quiet: Quiet = False,
) -> None:
    """Find nodules in the lungs: position in mm (LPS), diameter and score of each. For research, not for diagnosis."""
    from uhrct import io
    from uhrct.core.extras import check_extra
    from uhrct.core.files import write_json
    from uhrct.core.version import __version__

    check_extra("detection", "evaluation", scipy="scipy", skimage="scikit-image")
    if sr is not None:
        check_extra("a DICOM report", "dicom", highdicom="highdicom")
    from uhrct.io.findings import RoundFinding
    from uhrct.models.choice import pick_device
    from uhrct.tasks.detect import as_report, as_table, load_detector, write_csv
    from uhrct.tasks.detect import detect as find

    for path, suffix in ((csv, ".csv"), (sr, ".dcm")):
        if path is not None and path.suffix.lower() != suffix:
            raise UhrctError(f"{path}: give a file that ends in {suffix}")
    if excluded is not None and annotations is None:
        raise UhrctError(f"`excluded` {excluded}: needs `annotations` too")
    if sr is not None and annotations is not None:
        raise UhrctError(f"{sr}: a report is of one scan; leave out `annotations`")
    of_one_scan = {"series": series, "input-spacing": input_spacing, "untilt": untilt, "anonymize": anonymize}
    of_one_scan["anonymize-key"] = anonymize_key
    if annotations is not None and (unused := next((name for name, value in of_one_scan.items() if value), None)):
        raise UhrctError(f"--{unused}: has no meaning with --annotations, which reads a folder of scans; leave it out")
    for path in (input, annotations, excluded):
        if path is not None:
            io.check_outputs(path, [], files=[csv, sr, json_path], overwrite=overwrite)
    pick_device(device)  # a wrong name is refused, also where no network runs
    network = load_detector(weights, device)
    if annotations is not None:
        _score_folder(input, annotations, excluded, csv, json_path, network, quiet)
        return
    dicom = dicom_options(Syntax.explicit, False, anonymize, anonymize_key)
    volume = read_input(input, series, input_spacing, untilt)
    if sr is not None and not volume.meta.get("dicom"):
        raise UhrctError(f"{sr}: a DICOM report refers to DICOM images, and {input} is none; use --csv or --json")
    if least_score is None:
        least_score = 0.0 if network is None else 0.5
    try:
        found = find(volume, network=network, quiet=quiet)
    except UhrctError as error:
        raise type(error)(f"{input}: {error}") from error
    if weights is None:
        note(FILTER_ALONE)
    kept = [n for n in found if n.score >= least_score][:most]
    if csv is not None:
        write_csv({ANONYMOUS if anonymize else _name(input, volume.meta): kept}, csv)
    if sr is not None and not kept:
        sr.unlink(missing_ok=True)  # an older report, which --overwrite replaces
        note(f"{sr}: not written, because there are no findings")
    elif sr is not None:
        what = f"uhrct {__version__} detection of nodules by "
        what += "a filter" if network is None else f"{network.name} (sha256 {network.weights_sha256[:12]})"
        io.write_findings(
            # the score of the filter is no probability, and the report would call it one
            [RoundFinding(n.centre_mm, n.diameter_mm, None if network is None else n.score) for n in kept],
            sr,
            volume,
            io.Derivation(what, key=f"{what} {least_score} {most}", suffix="nodules", codes=()),
            dicom=dicom,
            overwrite=overwrite,
        )
    print_table(as_table(kept), json_path)
    if json_path is not None:
        more = {"least_score": least_score, "most": most, "input": str(input), "warnings": NOTES}
        write_json(json_path, as_report(kept, network) | more)
    if network is None:
        say(f"{len(kept)} candidates, the strongest response first; many of them are vessels. {NOTE}", quiet)
    else:
        say(f"{len(kept)} findings with a score of {least_score:g} or more. {NOTE}", quiet)


def _score_folder(
    folder: Path,
    annotations: Path,
    excluded: Path | None,
    csv: Path | None,
    json_path: Path | None,
    network: NoduleNetwork | None,
    quiet: bool,
) -> None:
    """Findings and FROC of a folder of scans with known nodules."""
    from functools import partial

    from uhrct.core.files import write_json
    from uhrct.tasks.detect import as_report, write_csv
    from uhrct.tasks.detect import detect as find
    from uhrct.tasks.detect_folder import detect_folder, froc_report, froc_table

    detector = partial(find, network=network)
    result = detect_folder(folder, annotations, excluded=excluded, find=detector, quiet=quiet)
    if network is None:
        note(FILTER_ALONE)
    for line in result.notes:
        note(line)
    if csv is not None:
        write_csv(result.found, csv)
    print_table(froc_table(result), json_path)
    if json_path is not None:
        scans = {name: as_report(nodules, network)["nodules"] for name, nodules in result.found.items()}
        report = as_report([], network) | {"froc": froc_report(result), "nodules": scans}
        write_json(json_path, report | {"input": str(folder), "warnings": NOTES})
    say(f"{_count(result.nodules, 'nodule')} in {_count(len(result.found), 'scan')}. {NOTE}", quiet)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _name(input: Path, meta: dict) -> str:
    """The name of a scan in a table: its SeriesInstanceUID, else the name of the file."""
    headers = meta.get("dicom")
    uid = str(headers[0].get("SeriesInstanceUID") or "") if headers else ""
    from uhrct.training.data.datasets import stem

    return uid or stem(input.resolve())
