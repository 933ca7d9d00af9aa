"""Commands on scans: demo, segment, serve."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from heatmask.command_line import Device, Options, Pattern, console, read_axis, read_options
from heatmask.masks.settings import MaskSettings
from heatmask.options import list_options

_HELP = {name: option.help for name, option in list_options(MaskSettings).items()}

ChosenBundle = Annotated[
    str | None,
    typer.Option(
        help="Name of a bundle, or the path of its folder; default: the one that did best on the "
        "scan's sequence (see `heatmask bundles`)."
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
        Path,
        typer.Argument(
            help="A NIfTI, an NRRD, a DICOM series folder, or a folder searched for scans."
        ),
    ],
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
        typer.Option("--gate/--no-gate", help="Mask only slices predicted to hold a tumour."),
    ] = None,
    snap: Annotated[bool | None, typer.Option("--snap/--no-snap", help=_HELP["snap"])] = None,
    slice_axis: Annotated[str | None, typer.Option(help="axial, coronal or sagittal.")] = None,
    options: Options = None,
) -> None:
    """Make heatmap, pseudo-mask, report and picture of a scan, or of every scan in a folder.

    Each case gets a folder in OUTPUT with CASE_mask.nii.gz (labels), CASE_heatmap.nii.gz
    (0 to 1), report.json and overview.png. A scan that fails is reported at the end and
    stops no other. Options left out are the bundle's own.
    """
    from heatmask.bundle import pick_bundle
    from heatmask.pipeline import Pipeline

    given = {
        "threshold_rule": threshold_rule,
        "threshold_level": threshold_level,
        "min_volume_mm3": min_volume_mm3,
        "gate": gate,
        "snap": snap,
        "slice_axis": None if slice_axis is None else read_axis(slice_axis),
        "pattern": pattern,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"input": str(scan), "output_dir": str(output)}
    settings |= read_options(options)
    folder = pick_bundle(bundle, scan, pattern, partial(console.print, markup=False))
    pipeline = Pipeline.from_bundle(folder, settings, device)
    try:
        pipeline.run(show=show_report)
    finally:
        if len(pipeline.dataset) > 1:  # Of a single case they stand just above
            show_notes(getattr(pipeline.dataset, "notes", ()))


def serve(
    studies: Annotated[Path, typer.Argument(help="A folder searched for scans; it is only read.")],
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
        Path | None, typer.Option(help="Settings of a provider of OpenID Connect (TOML).")
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
        studies, host, port, device, workdir, pattern=pattern, settings=settings, json_log=json_log
    )


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
