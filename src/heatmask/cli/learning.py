"""Commands for what is learnt from corrected masks: learn, learned."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from heatmask.bundle import DEFAULT_BUNDLE
from heatmask.command_line import Bundle, Device, Options, console, read_options
from heatmask.errors import HeatmaskError


def learn(
    workdir: Annotated[
        Path,
        typer.Argument(help="The work folder of a server, with the labels that were submitted."),
    ] = Path("work/serve"),
    bundle: Bundle = DEFAULT_BUNDLE,
    labels: Annotated[
        Path | None,
        typer.Option(help="Image-level labels too: CSV with patient, slice and tumour."),
    ] = None,
    way: Annotated[
        str | None,
        typer.Option(
            help="joint (the bundle's network), segmentation (a U-Net) or auto (joint where the "
            "network carries its heatmap; the default)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    device: Device = "auto",
    options: Options = None,
) -> None:
    """Learn from the masks that were corrected, and serve the result if it is not worse.

    Each corrected patient is held out in turn: the new weights become BUNDLE_learned only if their
    Dice on patients that they have not seen is at least that of what is served now. A training
    that was stopped or killed goes on when it is started again. `heatmask learned` lists what was
    learnt and brings earlier weights back.
    """
    from heatmask.bundle import find_bundle
    from heatmask.learning.learn import Learner
    from heatmask.learning.settings import LearnSettings
    from heatmask.learning.status import begin_training
    from heatmask.options import take_part
    from heatmask.serving.learning import find_corrected_store, find_learned, list_learn_scans

    logging.basicConfig(level=logging.WARNING)
    given = {"seed": seed, **({"way": way} if way else {}), **read_options(options)}
    settings = take_part(LearnSettings, check_options_known(given))
    store = find_corrected_store(workdir)
    folder = find_learned(store.flat)
    name = find_bundle(bundle).resolve().name
    with begin_training(folder, name, given, _print) as training:
        scans = list_learn_scans(store, labels)
        Learner(bundle, scans, folder, settings, training, device).run()


def learned(
    workdir: Annotated[Path, typer.Argument(help="The work folder of a server.")] = Path(
        "work/serve"
    ),
    restore: Annotated[
        tuple[str, int] | None,
        typer.Option(metavar="BUNDLE VERSION", help="Serve this version again."),
    ] = None,
) -> None:
    """List what was learnt from corrected masks, or serve an earlier version again.

    A server that runs takes the other version at once.
    """
    from heatmask.learning.bundle import mean
    from heatmask.learning.versions import LearnedVersions, read_record
    from heatmask.serving.learning import find_learned
    from heatmask.serving.store.export import find_stores

    versions = [LearnedVersions(find_learned(store.flat)) for store in find_stores(workdir)]
    if restore is not None:
        name, number = restore
        having = [found for found in versions if name in found.list_names()] or versions[:1]
        if len(having) > 1:
            folders = ", ".join(str(found.folder.parents[1]) for found in having)
            raise HeatmaskError(f"Several folders have {name}. Give one as WORKDIR: {folders}")
        having[0].serve(name, number)
        _print(f"{name}: version {number} is served.")
        return
    for found in versions:
        for name in found.list_names():
            current = found.find_current(name)
            for number in found.list_numbers(name):
                folder = found.get(name, number)
                record = read_record(folder)
                facts = "current" if folder.resolve() == current else ""
                if record is not None:
                    facts = (
                        f"{len(record.folds)} patients, Dice {mean(record.dice):.3f} held out"
                        f"{', ' + facts if facts else ''}"
                    )
                _print(f"{name}  {number}  {facts}")
    if not any(found.list_names() for found in versions):
        _print("Nothing was learnt yet.")


def check_options_known(options: dict[str, object]) -> dict[str, object]:
    """Refuse an option that learning does not have.

    Raises
    ------
    OptionError
        With the names that there are.
    """
    from heatmask.errors import OptionError
    from heatmask.learning.settings import LearnSettings
    from heatmask.options import name_options

    known = name_options([LearnSettings])
    unknown = sorted(options.keys() - known)
    if unknown:
        raise OptionError(
            f"There is no option {', '.join(unknown)}. Options: {', '.join(sorted(known))}."
        )
    return options


def _print(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
