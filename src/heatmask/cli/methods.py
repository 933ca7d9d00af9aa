"""Commands about attribution methods: methods, check."""

from typing import Annotated

import typer

from heatmask.command_line import Device, console


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with sources.")] = False,
) -> None:
    """List the attribution methods: what each needs, what it costs and where it comes from.

    Needs are what the network must have; costs are in passes through it, for one class.
    """
    from heatmask.check import describe_methods, format_json, print_methods

    if as_json:
        typer.echo(format_json(describe_methods()))
    else:
        print_methods(console)


def check(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle, or the path of its folder.")],
    method: Annotated[
        str | None, typer.Option(help="Look at this method alone; `heatmask methods` lists them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Check which attribution methods can be believed with a bundle's network.

    Measures on a synthetic image what each method rests on (gradients against finite
    differences, ReLUs gated, sums that must come out, an image alone against in a batch) and
    refuses what would give a plausible wrong heatmap. Exit status 1 if METHOD, or else the
    bundle's own, is refused.
    """
    from heatmask.check import format_json, inspect_bundle, print_findings

    findings = inspect_bundle(bundle, method, device)
    if as_json:
        typer.echo(format_json(findings.to_dict()))
    else:
        print_findings(findings, console)
    if not findings.sound:
        raise typer.Exit(1)
