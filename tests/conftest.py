"""Fixtures shared by all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.project import PROJECT


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, so that they neither use nor fill the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real MRI beside the project, which never becomes part of it."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real MRI is not at hand: no ../shared/data beside the project")
    return folder


@pytest.fixture(scope="session")
def lgg(shared_data: Path) -> Path:
    """The LGG MRI segmentation set."""
    return shared_data / "lgg"


@pytest.fixture(scope="session")
def meta_schema(shared_data: Path) -> Path:
    """MONAI's schema of metadata.json, which its verifier would else download."""
    path = shared_data.parent / "schema" / "meta_schema_20240725.json"
    if not path.is_file():
        pytest.skip(f"MONAI's metadata schema is not at hand: no {path.name} in ../shared/schema")
    return path


@pytest.fixture(scope="session")
def bundle_dir() -> Path:
    """The GP-UNet bundle."""
    return PROJECT / "bundles" / "brain_mri_gp_unet_segmentation"
