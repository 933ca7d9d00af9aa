"""What a request may set, and to what."""

import pytest

from heatmask.errors import OptionError
from heatmask.serving.options import Option, build_panel, read_options, to_config

CONFIG = {
    "threshold_rule": "otsu",
    "min_volume_mm3": 100,
    "gate": True,
    "slice_axis": 1,
    "network_def": {"_target_": "torch.nn.Identity"},
}
SHOWN = {
    "threshold_rule": ["level", "otsu"],
    "min_volume_mm3": 5.0,
    "gate": False,
    "slice_axis": ["axial", "coronal", "sagittal"],
}


@pytest.fixture
def panel() -> dict[str, Option]:
    return build_panel(SHOWN, CONFIG)


def test_panel_shows_the_bundles_own_defaults_first(panel):
    assert {name: option.panel_value for name, option in panel.items()} == {
        "threshold_rule": ["otsu", "level"],
        "min_volume_mm3": 100.0,
        "gate": True,
        "slice_axis": ["coronal", "axial", "sagittal"],
    }


def test_empty_request_means_the_bundles_own_values(panel):
    values, warnings = read_options(panel, {"image": "x", "model": "y"})
    assert to_config(values) == {name: CONFIG[name] for name in SHOWN}
    assert warnings == []


def test_panel_sent_back_as_it_came_means_the_defaults(panel):
    request = {name: option.panel_value for name, option in panel.items()}
    assert read_options(panel, request) == read_options(panel, {})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("threshold_rule", "level", "level"),
        ("min_volume_mm3", "12.5", 12.5),
        ("min_volume_mm3", 0, 0.0),
        ("gate", False, False),
        ("gate", "False", False),
        ("slice_axis", "sagittal", 0),
    ],
)
def test_values_arrive_in_the_options_type(panel, name, value, expected):
    value_in_config = to_config(read_options(panel, {name: value})[0])[name]
    assert value_in_config == expected
    assert type(value_in_config) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold_rule", "magic", "must be one of otsu, level"),
        ("threshold_rule", ["magic"], "must be one of otsu, level"),
        ("threshold_rule", 3, "must be one of otsu, level"),
        ("min_volume_mm3", -1, "number from 0 to 1e"),
        ("min_volume_mm3", "much", "number from 0 to 1e"),
        ("min_volume_mm3", float("nan"), "number from 0 to 1e"),
        ("min_volume_mm3", float("inf"), "number from 0 to 1e"),
        ("min_volume_mm3", True, "number from 0 to 1e"),
        ("min_volume_mm3", None, "number from 0 to 1e"),
        ("min_volume_mm3", [], "number from 0 to 1e"),
        ("gate", 1, "true or false"),
        ("gate", "yes", "true or false"),
        ("slice_axis", 2, "one of coronal, axial, sagittal"),
        ("slice_axis", {"axial": 2}, "one of coronal, axial, sagittal"),
    ],
)
def test_wrong_types_and_ranges_are_refused(panel, name, value, message):
    with pytest.raises(OptionError, match=message):
        read_options(panel, {name: value})


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("code", ["$__import__('os').getcwd()", "@network_def", "%x.json", " $1"])
def test_text_that_the_config_parser_acts_on_is_refused(panel, name, code):
    with pytest.raises(OptionError, match="must not start with"):
        read_options(panel, {name: code})
    with pytest.raises(OptionError, match="must not start with"):
        read_options(panel, {name: [code]})


def test_what_is_no_option_is_left_out_and_named(panel):
    values, warnings = read_options(panel, {"network_def": "$boom()", "client_id": "$me"})
    assert set(values) == set(SHOWN)
    assert len(warnings) == 1
    assert "network_def" in warnings[0]
    assert "client_id" not in warnings[0]


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"size": 1.0}, "must name top-level values"),
        ({"threshold_rule": ["level"]}, "must be one of level, got 'otsu'"),
        ({"network_def": 1.0}, "must be a bool, a number or a list"),
    ],
)
def test_a_panel_that_does_not_fit_the_bundle_is_refused(shown, message):
    with pytest.raises(OptionError, match=message):
        build_panel(shown, CONFIG)
