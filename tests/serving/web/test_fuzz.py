"""A little of `make fuzz`: damaged requests to every route, damaged files to what reads them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatmask.serving.web import create_app
from helpers.fuzz_files import (
    DAMAGES,
    gzip_again,
    make_slices,
    make_volumes,
    read_slices,
    read_volume,
)
from helpers.fuzz_requests import list_routes, make_attempts, send
from helpers.web import Web

SOME = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(SOME, max_examples=30)


def test_no_request_is_answered_with_500(web: Web, tmp_path: Path) -> None:
    routes, seen = list_routes(create_app(web.serving)), set()
    assert ("PUT", "/datastore/label") in routes
    studies = {path: path.read_bytes() for path in web.studies.rglob("*.nii.gz")}

    @SOME
    @given(attempt=make_attempts(routes, make_volumes(tmp_path)))
    def attack(attempt):
        seen.add(send(web.url, attempt)[0])

    attack()
    assert {200, 404, 422} <= seen
    assert {path: path.read_bytes() for path in web.studies.rglob("*.nii.gz")} == studies
    web.send("DELETE", "/batch/infer/")
    assert not [path for path in web.serving.tmp.iterdir() if any(path.glob("*sent*"))]


def test_requests_by_the_applications_own_schema_and_against_it(web: Web) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    schema = schemathesis.openapi.from_dict(create_app(web.serving).openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 30
    modes = schemathesis.GenerationMode
    kinds = [o.as_strategy(generation_mode=mode) for o in operations for mode in modes]

    @SOME
    @given(case=st.one_of(kinds))
    def attack(case):
        answer = case.call(base_url=web.url, timeout=60)
        assert answer.status_code != 500, answer.text

    attack()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_a_damaged_volume_is_read_or_refused(suffix: str, tmp_path: Path) -> None:
    good = make_volumes(tmp_path)[suffix.replace(".gz", "")]
    pack = gzip_again if suffix == ".nii.gz" else bytes
    assert read_volume(tmp_path, suffix, pack(good))

    @FEWER
    @given(damage=DAMAGES)
    def damage_it(damage):
        read_volume(tmp_path, suffix, pack(damage.apply(good)))

    damage_it()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_damaged_slice_is_read_or_refused(tmp_path: Path) -> None:
    slices = make_slices(tmp_path)
    good = slices[min(slices)]
    assert read_slices(tmp_path, slices, good)

    @FEWER
    @given(damage=DAMAGES)
    def damage_it(damage):
        read_slices(tmp_path, slices, damage.apply(good))

    damage_it()
