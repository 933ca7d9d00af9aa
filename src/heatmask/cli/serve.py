"""`heatmask serve`: where it listens, and who may reach it."""

from pathlib import Path
from typing import Annotated

import typer

from heatmask.command_line import Device, Pattern

OTHERS = "For other machines than this one"


def serve(
    studies: Annotated[Path, typer.Argument(help="A folder searched for scans; it is only read.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    device: Device = "auto",
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where labels, users and the audit log are kept; default: work/serve below the "
            "current folder."
        ),
    ] = None,
    pattern: Pattern = None,
    json_log: Annotated[
        bool, typer.Option("--json-log", help="Write the log as one JSON object a line.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of this machine and its chain (PEM).", rich_help_panel=OTHERS
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=OTHERS)
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a proxy that has TLS: it alone may connect, and is "
            "believed whom it speaks for. Repeatable.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which the server may be called, such as scans.hospital.org. "
            "Repeatable.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    oidc: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Log-in at a provider of OpenID Connect such as Keycloak; the settings as TOML.",
            rich_help_panel=OTHERS,
        ),
    ] = None,
    token_hours: Annotated[
        float, typer.Option(help="How long a log-in lasts.", rich_help_panel=OTHERS)
    ] = 12,
) -> None:
    """Serve every bundle to 3D Slicer by MONAI Label's protocol.

    In Slicer: module MONAI Label, server http://127.0.0.1:8000, Next Sample, Run, correct the
    mask, Submit Label.

    Without users there is no log-in, and only this machine can reach the server. For others it
    needs TLS and users (`heatmask users add`): see docs/how-to/hospital.md.
    """
    from heatmask.serving.access import AccessSettings, read_oidc
    from heatmask.serving.server import start_server

    settings = AccessSettings(
        host=host,
        allowed_hosts=tuple(allow_host or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        proxies=tuple(behind_proxy or ()),
        token_hours=token_hours,
        oidc=read_oidc(oidc) if oidc else None,
    )
    start_server(
        studies, port=port, device=device, workdir=workdir, pattern=pattern, settings=settings,
        json_log=json_log,
    )  # fmt: skip
