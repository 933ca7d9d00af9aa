"""What a request may set, and to what."""

import pytest

from heatmask.errors import OptionError
from heatmask.options import Option
from heatmask.parts import offer_options
from heatmask.serving.options import build_panel, read_options, show_option, to_config

CONFIG = {
    "options": {"_target_": "heatmask.bundle.read_options"},
    "threshold_rule": "multi_otsu",
    "min_volume_mm3": 100.0,
    "slice_axis": 1,
    "network_def": {"_target_": "torch.nn.Identity"},
}


@pytest.fixture
def panel(tmp_path) -> dict[str, Option]:
    return build_panel(offer_options(tmp_path, CONFIG))


def test_panel_shows_the_bundles_own_defaults_first(panel):
    assert {name: show_option(option) for name, option in panel.items()} == {
        "slice_axis": ["coronal", "axial", "sagittal"],
        "gate": True,
        "gate_probability": 0.5,
        "amp": False,
        "preset": ["default", "paper"],
        "threshold_rule": ["multi_otsu", "otsu", "fixed", "warm", "level_sets"],
        "threshold_level": 0.5,
        "warm_level": 0.35,
        "min_volume_mm3": 100.0,
        "snap": True,
    }


def test_methods_are_those_with_a_known_range(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "calibration.json").write_text(
        '{"saliency": [0, 1], "grad_cam": [0, 1], "grad_cam:layer3": [0, 2]}'
    )
    panel = build_panel(offer_options(tmp_path, {**CONFIG, "method": "grad_cam"}))
    assert show_option(panel["method"]) == ["grad_cam", "saliency"]
    assert show_option(panel["target_layer"]) == ["auto", "layer3"]
    assert "preset" not in panel


def test_a_network_in_3d_has_the_options_of_blocks(tmp_path):
    panel = build_panel(offer_options(tmp_path, {**CONFIG, "block_slices": 4, "overlap": 0.75}))
    assert (panel["whole_volume"].default, panel["overlap"].default) == (False, 0.75)


def test_every_option_says_what_it_is(panel):
    assert all(option.help.endswith(".") for option in panel.values())


def test_a_bundle_of_an_earlier_version_offers_what_its_config_has(tmp_path):
    config = {name: value for name, value in CONFIG.items() if name != "options"}
    offered = offer_options(tmp_path, config)
    assert offered.keys() == {"threshold_rule", "min_volume_mm3", "slice_axis"}


def test_empty_request_means_the_bundles_own_values(panel):
    values, warnings = read_options(panel, {"image": "x", "model": "y"})
    assert (
        to_config(values).items()
        >= {
            name: CONFIG[name] for name in ("threshold_rule", "min_volume_mm3", "slice_axis")
        }.items()
    )
    assert warnings == []


def test_panel_sent_back_as_it_came_means_the_defaults(panel):
    request = {name: show_option(option) for name, option in panel.items()}
    assert read_options(panel, request) == read_options(panel, {})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("threshold_rule", "fixed", "fixed"),
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
        ("threshold_rule", "magic", "must be one of multi_otsu, otsu, fixed"),
        ("threshold_rule", ["magic"], "must be one of multi_otsu, otsu, fixed"),
        ("threshold_rule", 3, "must be one of multi_otsu, otsu, fixed"),
        ("min_volume_mm3", -1, "must be at least 0, got -1"),
        ("min_volume_mm3", "much", "must be at least 0, got 'much'"),
        ("min_volume_mm3", float("nan"), "must be at least 0"),
        ("min_volume_mm3", float("inf"), "must be at least 0"),
        ("min_volume_mm3", True, "must be at least 0"),
        ("min_volume_mm3", None, "must be at least 0"),
        ("min_volume_mm3", [], "must be at least 0"),
        ("gate_probability", 1.5, "must be a number from 0 to 1"),
        ("threshold_level", "inf", "must be a number from 0 to 1, got inf"),
        ("threshold_level", -2.5, "must be a number from 0 to 1, got -2.5"),
        (
            "threshold_rule",
            "level",
            "The rule level, in the heatmap's own unit, is now",
        ),
        ("gate", 1, "true or false"),
        ("gate", "yes", "true or false"),
        ("slice_axis", 2, "one of coronal, axial, sagittal"),
        ("slice_axis", {"axial": 2}, "one of coronal, axial, sagittal"),
    ],
)
def test_wrong_types_and_ranges_are_refused(panel, name, value, message):
    with pytest.raises(OptionError, match=message):
        read_options(panel, {name: value})


@pytest.mark.parametrize("name", ["threshold_rule", "min_volume_mm3", "gate", "slice_axis"])
@pytest.mark.parametrize("code", ["$__import__('os').getcwd()", "@network_def", "%x.json", " $1"])
def test_text_that_the_config_parser_acts_on_is_refused(panel, name, code):
    with pytest.raises(OptionError, match="must not start with"):
        read_options(panel, {name: code})
    with pytest.raises(OptionError, match="must not start with"):
        read_options(panel, {name: [code]})


def test_what_is_no_option_is_left_out_and_named(panel):
    values, warnings = read_options(panel, {"network_def": "$boom()", "client_id": "$me"})
    assert set(values) == set(panel)
    assert len(warnings) == 1
    assert "network_def" in warnings[0]
    assert "client_id" not in warnings[0]


def test_a_bundle_whose_own_value_is_no_choice_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"threshold_rule must be one of otsu.*, got 'best'"):
        build_panel(offer_options(tmp_path, {**CONFIG, "threshold_rule": "best"}))
