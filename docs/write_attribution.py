"""Write docs/reference/attribution.md from the registry of attribution methods.

Run as ``python docs/write_attribution.py`` (`make docs`).
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

from heatmask.attribution import list_methods
from heatmask.attribution.registry import FAMILIES, INVARIANTS, NEEDS, SHARED_OPTIONS, Method

PAGE = Path(__file__).parent / "reference" / "attribution.md"

HEAD = """\
# Attribution methods

Written from the registry by `make docs`; `heatmask methods [--json]` prints the same list. Use a
method by its name: the option `method` of a bundle, `explain(network, images, "grad_cam")` or
`Explainer("grad_cam")` in Python. `heatmask check BUNDLE` tells which of them can be believed with
a bundle's network.

All work on slices (B, C, H, W) and volumes (B, C, X, Y, Z), on any number of classes at once, in
batches that do not change the result, and leave the network as it was. They return an attribution
that is signed (unless said otherwise) and not normalised. Cost is in passes through the network,
forward and back, for one class.

Options of all: `target_layer` (a dotted path; None for the last map before the network loses its
spatial axes), `baseline` (a number or an image; None for zeros), `seed`, `flips` (spatial axes to
average mirrored copies over), `scales` (factors to average resized copies over). A method that
does not use one of the first three ignores it.

![Every method on a synthetic head, by trained and by random weights](../images/gallery.png)

Every method with the ResNet bundle on a slice of a synthetic head with a bright lesion, beside the
same on random weights; red speaks for "tumour", each map scaled by itself. A method whose two maps
look alike does not show what the network has learnt. For a scan of yours:
`python benchmarks/draw_gallery.py --scan SCAN --slice 12`.
"""

WORDS = """
## Networks

A network is a `torch.nn.Module` whose forward returns one logit for each class: a floating-point
tensor of shape (batch, classes). Before any method runs, these are refused, each with what to do
about it:

- probabilities: a network that ends in a sigmoid, a softmax, their logarithms or a threshold, as a
  module or a function, in Python or in TorchScript
- logits that are the same for every image, or not finite
- a dict, a tuple, an object with `logits`, a vector (batch,), a segmentation map
- lazy layers that have no size yet, weights on the device `meta`, a state dict, an exported program
- a network and images on two devices

A network wrapped by `torch.compile` or `nn.DataParallel` is explained as it was before. Of
TorchScript no layers or ReLUs can be seen, and of a quantised network no gradients: methods that
need them are refused. A refusal names at most two other methods, which were tried on that network.

## Words

What a method needs:

{needs}

What must hold for a method's result, and is checked:

{invariants}

## A method of your own

```python
from heatmask.attribution import explain, register
from heatmask.attribution.gradient import backpropagate


@register(
    "gradient_times_range",
    family="gradient",
    passes=2,
    paper="none yet",
)
def explain_by_gradient_times_range(network, images, class_idx, power=1.0):
    \"\"\"The gradient's magnitude times the image's range.\"\"\"
    logits, gradients = backpropagate(network, images, class_idx)
    span = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    return logits, gradients["plain"].abs().sum(2) * span.view(-1, 1, 1, 1) ** power


logits, attribution = explain(network, images, "gradient_times_range", power=2.0)
```

A method of Captum is registered in the same way:

```python
from captum import attr

from heatmask.attribution.captum_methods import run_captum


@register("captum_input_x_gradient", family="gradient", passes=2, paper="arXiv 1605.01713")
def explain_by_captum(network, images, class_idx):
    \"\"\"Captum's input x gradient.\"\"\"
    return run_captum(attr.InputXGradient, network, images.requires_grad_(), class_idx)
```

Without `passes` (a number, or a number and the option it is multiplied by, as in `(2, "samples")`)
`heatmask compare --quick` leaves a method out. The function gets a
private copy of the network, frozen and in eval mode, to hook or change at will;
`help(heatmask.attribution.register)` says the rest.
"""


def write_page() -> str:
    """Return the page's text."""
    parts = [HEAD]
    for family in FAMILIES:
        parts.append("\n".join(_write_family(family)))
    needs = "\n".join(f"- `{word}`: {meaning}" for word, meaning in NEEDS.items())
    invariants = "\n".join(f"- `{word}`: {meaning}" for word, meaning in INVARIANTS.items())
    parts.append(WORDS.format(needs=needs, invariants=invariants).strip())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _write_family(family: str) -> Iterator[str]:
    yield f"## {family.capitalize()}" if family != "cam" else "## CAM"
    yield ""
    yield "| method | what it shows | needs | cost | computed by | from |"
    yield "| --- | --- | --- | --- | --- | --- |"
    methods = [method for method in list_methods() if method.family == family]
    for method in methods:
        needs = ", ".join(sorted(method.needs))
        cells = (
            f"`{method.name}`",
            method.summary,
            needs,
            method.cost,
            method.source,
            method.paper,
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for method in methods:
        own = {k: v for k, v in method.options.items() if k not in SHARED_OPTIONS}
        details = _read_details(method)
        if own or details:
            yield from ("", f"### {method.name}")
            yield from (("", details) if details else ())
            if own:
                yield from (
                    "",
                    "Options: " + ", ".join(f"`{k}={v!r}`" for k, v in own.items()) + ".",
                )


def _read_details(method: Method) -> str:
    """Return what the docstring says after its first sentence, up to the first section."""
    body = (inspect.getdoc(method.function) or "").partition("\n\n")[2]
    for title in ("Parameters", "Returns", "Raises", "Notes"):
        body = body.partition(f"{title}\n---")[0]
    return body.strip()


def main() -> None:
    """Write the page."""
    PAGE.write_text(write_page(), encoding="utf-8")
    print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
