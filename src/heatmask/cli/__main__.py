"""``python -m heatmask.cli``."""

from heatmask.cli import main

main()
