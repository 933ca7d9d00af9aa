"""Commands on scans: demo, segment, prelabel, serve."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from heatmask.command_line import (
    Device,
    Options,
    PacsFilter,
    Pattern,
    console,
    read_axis,
    read_filters,
    read_options,
)
from heatmask.errors import OptionError
from heatmask.masks.settings import MaskSettings
from heatmask.options import list_options

if TYPE_CHECKING:
    from heatmask.pacs import Pacs

_HELP = {name: option.help for name, option in list_options(MaskSettings).items()}

ChosenBundle = Annotated[
    str | None,
    typer.Option(
        help="Name of a bundle, or the path of its folder; default: the one with the best Dice on "
        "the scan's sequence (see `heatmask bundles`)."
    ),
]

Studies = Annotated[
    str,
    typer.Argument(
        help="A folder searched for scans, which is only read; or the DICOMweb address of a PACS, "
        "such as http://host:8042/dicom-web."
    ),
]


def demo(
    image: Annotated[
        Path | None, typer.Option(help="A scan of your own instead of the synthetic brain.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo"),
    bundle: ChosenBundle = None,
    device: Device = "auto",
) -> None:
    """Segment a synthetic brain with a known lesion, or your own scan, and show the picture.

    Works offline. The synthetic brain is generated, not a patient; its lesion is known, so the
    command ends with the Dice of the pseudo-mask against it.
    """
    from heatmask.demo import run_demo

    run_demo(image, output, bundle, device, console)


def segment(
    scan: Annotated[
        Path | None,
        typer.Argument(
            help="A NIfTI or NRRD file, a DICOM series folder or file, a picture, or a folder "
            "searched for scans; none with --dicomweb."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "output"
    ),
    bundle: ChosenBundle = None,
    pattern: Pattern = None,
    device: Device = "auto",
    threshold_rule: Annotated[str | None, typer.Option(help=_HELP["threshold_rule"])] = None,
    threshold_level: Annotated[float | None, typer.Option(help=_HELP["threshold_level"])] = None,
    min_volume_mm3: Annotated[float | None, typer.Option(help=_HELP["min_volume_mm3"])] = None,
    gate: Annotated[
        bool | None,
        typer.Option(
            "--gate/--no-gate", help="Mask only slices (or volumes) predicted to show the finding."
        ),
    ] = None,
    snap: Annotated[bool | None, typer.Option("--snap/--no-snap", help=_HELP["snap"])] = None,
    slice_axis: Annotated[str | None, typer.Option(help="axial, coronal or sagittal.")] = None,
    dicom_seg: Annotated[
        bool,
        typer.Option(
            "--dicom-seg",
            help="Also write CASE_mask.dcm (DICOM SEG) and CASE_heatmap.dcm (parametric map), "
            "which refer to the series; the scans must be DICOM.",
        ),
    ] = False,
    dicomweb: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Take the scan from this PACS: its DICOMweb address, with --study."
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="UID", help="StudyInstanceUID, with --dicomweb.")
    ] = None,
    send_seg: Annotated[
        bool,
        typer.Option("--send-seg", help="Send the mask to that PACS too, as DICOM SEG."),
    ] = False,
    options: Options = None,
) -> None:
    """Make heatmap, pseudo-mask, report and picture of a scan, or of every scan in a folder.

    Each case gets a folder in OUTPUT with CASE_mask.nii.gz (labels), CASE_heatmap.nii.gz
    (0 to 1), report.json and overview.png. A scan that fails is reported at the end and
    stops no other. Options left out are the bundle's own.
    """
    from heatmask.bundle import pick_bundle
    from heatmask.pipeline import Pipeline
    from heatmask.report.writer import CaseWriter

    given = {
        "threshold_rule": threshold_rule,
        "threshold_level": threshold_level,
        "min_volume_mm3": min_volume_mm3,
        "gate": gate,
        "snap": snap,
        "slice_axis": None if slice_axis is None else read_axis(slice_axis),
        "pattern": pattern,
    }
    scan, pacs = choose_scan(scan, dicomweb, study, send_seg, output)
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"input": str(scan), "output_dir": str(output)}
    settings |= read_options(options)
    if threshold_level is not None and settings.setdefault("threshold_rule", "fixed") != "fixed":
        raise OptionError(
            "--threshold-level is that of the rule fixed; got --threshold-rule "
            f"{settings['threshold_rule']}. Leave one of them out."
        )
    folder = pick_bundle(bundle, scan, pattern, partial(console.print, markup=False))
    pipeline = Pipeline.from_bundle(folder, settings, device)
    writer = CaseWriter(str(settings["output_dir"]), dicom=dicom_seg or send_seg)

    def finish(report: dict[str, Any]) -> None:
        show_report(report)
        if pacs is not None and send_seg:
            send_mask(pacs, report)

    try:
        pipeline.run(writer=writer, show=finish)
    finally:
        if len(pipeline.dataset) > 1:  # Of a single case they stand just above
            show_notes(getattr(pipeline.dataset, "notes", ()))


def serve(
    studies: Studies,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    device: Device = "auto",
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where labels, users and what clients send are kept; default: work/serve here."
        ),
    ] = None,
    pattern: Pattern = None,
    pacs_filter: PacsFilter = None,
    send_seg: Annotated[
        bool,
        typer.Option(
            "--send-seg/--no-send-seg",
            help="Send each submitted mask to the PACS that the studies are from, as DICOM SEG.",
        ),
    ] = True,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM) for https, with --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    behind_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network of a proxy with https in front; may be repeated."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name under which the server is called; may be repeated."),
    ] = None,
    oidc: Annotated[
        Path | None, typer.Option(help="TOML file with the settings of an OpenID Connect provider.")
    ] = None,
    token_hours: Annotated[float, typer.Option(help="How long a log-in lasts.")] = 12.0,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log JSON, for machines.")] = False,
) -> None:
    """Serve every bundle to 3D Slicer through MONAI Label.

    In Slicer: module MONAI Label, server http://127.0.0.1:8000, Next Sample, Run, correct the
    mask, Submit Label. Without users (`heatmask users`) it serves this machine alone.
    """
    from heatmask.serving.access import AccessSettings, read_oidc
    from heatmask.serving.server import start_server

    settings = AccessSettings(
        host, tuple(allow_host or ()), tls_cert, tls_key, tuple(behind_proxy or ()), token_hours,
        read_oidc(oidc) if oidc else None,
    )  # fmt: skip
    start_server(
        studies, host, port, device, workdir, pattern=pattern, filters=read_filters(pacs_filter),
        send_seg=send_seg, settings=settings, json_log=json_log,
    )  # fmt: skip


def prelabel(
    studies: Studies,
    bundle: ChosenBundle = None,
    workdir: Annotated[
        Path | None, typer.Option(help="The server's; default: work/serve here.")
    ] = None,
    pattern: Pattern = None,
    pacs_filter: PacsFilter = None,
    device: Device = "auto",
    again: Annotated[
        bool, typer.Option("--again", help="Also for scans that this version has labelled before.")
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="An option of the panel in 3D Slicer, such as threshold_rule=otsu. Repeatable.",
        ),
    ] = None,
) -> None:
    """Make a mask of every study, which opens with its scan at the next Next Sample.

    To be run overnight, while no server is at work on the same work folder. A scan that fails
    stops no other. Stopped, killed or run again later, it goes on with the scans that have no
    mask yet.
    """
    from heatmask.bundle import list_bundles
    from heatmask.serving.prelabel import prelabel as label_all

    label_all(
        studies, (workdir or Path("work/serve")).resolve(), list_bundles(), console,
        bundle=bundle, device=device, pattern=pattern, filters=read_filters(pacs_filter),
        options=read_options(options), again=again,
    )  # fmt: skip


def choose_scan(
    scan: Path | None, dicomweb: str | None, study: str | None, send_seg: bool, output: Path
) -> tuple[Path, "Pacs | None"]:
    """Return the path of the scan, fetched if it is in a PACS, and that PACS."""
    if (scan is None) == (dicomweb is None) or (dicomweb is None) != (study is None):
        raise OptionError("Give a SCAN, or --dicomweb URL and --study UID.")
    if scan is not None:
        if send_seg:
            raise OptionError("--send-seg needs the PACS that the scan is from: --dicomweb URL.")
        return scan, None
    from heatmask.bundle import list_bundles, list_sequences
    from heatmask.pacs import Pacs, fetch_study

    pacs = Pacs(str(dicomweb))
    sequences = list_sequences(list_bundles())
    return fetch_study(pacs, str(study), output / "dicom", sequences), pacs


def send_mask(pacs: "Pacs", report: dict[str, Any]) -> None:
    """Send the mask that was written of a case to a PACS."""
    from pydicom import dcmread

    pacs.send(dcmread(Path(report["output"]) / f"{report['case']}_mask.dcm"))
    console.print(f"  The mask is in the PACS at {escape(pacs.url)}")


def show_notes(notes: Iterable[str]) -> None:
    """Repeat at the end of a run what was found and is not in it."""
    for note in notes:
        console.print(f"[yellow]Note:[/yellow] {escape(note)}")


def show_report(report: dict[str, Any]) -> None:
    """Print what was found in one case and where the files are."""
    seconds = sum(report["seconds"].values())
    console.print(f"[bold]{escape(report['case'])}[/bold]: {report['finding']}")
    for warning in report["warnings"]:
        console.print(f"  [yellow]Warning:[/yellow] {escape(warning)}")
    console.print(f"  {seconds:.1f} s on {report['device']}; {escape(report['output'])}")
