"""MONAI's ResNet by its depth, in the only form whose gradients are right."""

from monai.networks import nets
from torch import nn

from heatmask.errors import OptionError

_DEPTHS = (10, 18, 34, 50, 101, 152)


def make_resnet(
    depth: int = 18,
    spatial_dims: int = 2,
    in_channels: int = 1,
    num_classes: int = 1,
    widen_factor: float = 1.0,
    max_pool: bool = True,
) -> nn.Module:
    """Return MONAI's `ResNet` of this depth, untrained, with projection shortcuts (type B).

    Shortcuts of type A read ``out.data`` in MONAI 1.6, which cuts the skip out of the
    gradient: every gradient method would give a plausible, wrong map. So they are not
    offered. Its target layers are ``layer1`` to ``layer4``.

    Parameters
    ----------
    depth
        10, 18, 34, 50, 101 or 152.
    widen_factor
        Scales the channels of every layer; 1 is (64, 128, 256, 512).
    max_pool
        False leaves out the pooling after the first convolution: attributions twice as fine,
        for four times the work.

    Raises
    ------
    OptionError
        There is no such depth.
    """
    if depth not in _DEPTHS:
        raise OptionError(f"depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth!r}.")
    make = getattr(nets, f"resnet{depth}")
    return make(
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        num_classes=num_classes,
        no_max_pool=not max_pool,
        shortcut_type="B",
        widen_factor=widen_factor,
    )
