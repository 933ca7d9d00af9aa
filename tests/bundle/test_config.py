"""Configs that are read while another thread imports."""

import sys
from types import SimpleNamespace

import pytest
from monai.bundle import config_item

from heatmask.bundle.config import read_bundle


@pytest.mark.upstream
def test_a_bundle_is_read_while_modules_come(bundle_dir, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI walks through `sys.modules` itself: a model was missing after some starts."""

    class Growing(dict):
        walks = 0

        def __iter__(self):
            Growing.walks += 1
            if Growing.walks == 1:
                raise RuntimeError("dictionary changed size during iteration")
            return super().__iter__()

    monkeypatch.setattr(config_item, "sys", SimpleNamespace(modules=Growing(sys.modules)))
    parser = read_bundle(bundle_dir)
    assert parser.get_parsed_content("network_def") is not None
    assert Growing.walks == 2
