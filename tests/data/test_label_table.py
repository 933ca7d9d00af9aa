"""The table of image-level labels: what is read, how it is split, what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatmask.data.label_table import LabelledImage, LabelTable, read_label_table
from heatmask.data.tables.csv_table import read_table
from heatmask.data.tables.image_finder import ImageFinder
from heatmask.data.tables.label_rows import LabelRow as Row
from heatmask.data.tables.splits import draw_splits
from heatmask.errors import InputError, OptionError

ANIMALS = (
    "image,label,patient,split\n"
    "a.png,cat,P1,train\nb.png,dog,P2,train\nc.png,,P3,train\n"
    "d.png,cat,P4,val\ne.png,dog,P5,val\nf.png,None,P6,val\ng.png,dog,P7,test\n"
)


def read(folder: Path, text: str, classes: list[str] | None = None, seed: int = 0) -> LabelTable:
    """Read a table whose images are all there."""
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    for line in text.splitlines()[1:]:
        name = line.split(",")[0].strip()
        if name and not name.startswith("absent"):
            (folder / name).touch()
    return read_label_table(folder / "labels.csv", folder, classes, seed)


def test_labels_are_those_of_the_mask(tmp_path: Path) -> None:
    table = read(tmp_path, ANIMALS)
    assert table.class_names == ("cat", "dog")
    assert table.has_negatives
    assert [row.label for row in table.rows] == [1, 2, 0, 1, 2, 0, 2]
    assert table.count_labels("train") == {"none": 1, "cat": 1, "dog": 1}
    assert table.count_labels("test") == {"none": 0, "cat": 0, "dog": 1}
    assert table.select("val") == (
        LabelledImage("P4", tmp_path / "d.png", {None: 1}, (5,)),
        LabelledImage("P5", tmp_path / "e.png", {None: 2}, (6,)),
        LabelledImage("P6", tmp_path / "f.png", {None: 0}, (7,)),
    )


def test_the_order_of_the_classes_may_be_given(tmp_path: Path) -> None:
    table = read(tmp_path, ANIMALS, ["dog", "cat"])
    assert [row.label for row in table.rows] == [2, 1, 0, 2, 1, 0, 1]


def test_without_negatives(tmp_path: Path) -> None:
    lines = [line for line in ANIMALS.splitlines() if ",," not in line and "None" not in line]
    table = read(tmp_path, "\n".join(lines))
    assert not table.has_negatives
    assert table.count_labels("val") == {"cat": 1, "dog": 1}


@pytest.mark.parametrize("negative", ["", "none", "Healthy", "0", " NONE "])
@pytest.mark.parametrize("positive", ["lesion", "1"])
def test_one_class_is_present_or_absent(tmp_path: Path, negative: str, positive: str) -> None:
    text = "image,label\n" + "".join(
        f"{i}.png,{positive if i % 2 else negative}\n" for i in range(10)
    )
    table = read(tmp_path, text, ["lesion"])
    assert [row.label for row in table.rows] == [0, 1] * 5


def test_slices_of_a_volume_are_one_image(tmp_path: Path) -> None:
    text = "image,slice,label,split\n" + "".join(
        f"{name}.nii.gz,{i},{'x' if i == 2 else 0},{split}\n"
        for name, split in (("a", "train"), ("b", "val"))
        for i in (5, 2, 0)
    )
    (image,) = read(tmp_path, text).select("train")
    assert image.labels == {5: 0, 2: 1, 0: 0}
    assert image.lines == (2, 3, 4)
    assert image.list_labels(6) == (0, None, 1, None, None, 0)
    with pytest.raises(InputError, match=r"has 5 slices along its third axis, and .* slice 5"):
        image.list_labels(5)


@pytest.mark.fault("H")
def test_one_image_with_a_slice_and_without_is_refused(tmp_path: Path) -> None:
    """It would have two labels: an empty slice of an image of one slice is slice 0."""
    text = "image,slice,label\na.png,,x\na.png,0,y\n" + "".join(f"{n}.png,,x\n" for n in range(5))
    with pytest.raises(InputError, match=r"line 3: 'a.png' has lines with a slice and without"):
        read(tmp_path, text)


@pytest.mark.fault("H")
@pytest.mark.parametrize("seed", range(3))
def test_a_volume_by_two_spellings_is_one_patient(tmp_path: Path, seed: int) -> None:
    lines = [
        f"{'./' * (index % 2)}v{number}.nii.gz,{index},{'x' if (number + index) % 3 else 0}"
        for number in range(6)
        for index in range(4)
    ]
    table = read(tmp_path, "image,slice,label\n" + "\n".join(lines), seed=seed)
    assert len({row.patient for row in table.rows}) == 6
    for place in {row.path for row in table.rows}:
        assert len({row.split for row in table.rows if row.path == place}) == 1


def test_an_image_of_one_slice_needs_no_slice_number(tmp_path: Path) -> None:
    image = LabelledImage("p", tmp_path, {None: 3}, (2,))
    assert image.list_labels(1) == (3,)
    with pytest.raises(InputError, match=r"has 7 slices along .* which is meant"):
        image.list_labels(7)


def test_a_table_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    table = read(tmp_path, "\ufeff" + ANIMALS.replace("\n", "\r\n").replace(",", " , "))
    assert [row.label for row in table.rows] == [1, 2, 0, 1, 2, 0, 2]


@pytest.mark.fault("H")
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_table_in_any_spelling(
    tmp_path: Path, separator: str, encoding: str, newline: str
) -> None:
    """A line break and the separator in quotes, blanks around names, lines without values."""
    (tmp_path / "Ödem,1.png").touch()
    (tmp_path / "b.png").touch()
    rows = [
        ["image", "note ", " label", ""],
        ["", "", "", ""],
        ['"Ödem,1.png"', f'"two{newline}lines{separator} ""quoted"""', "x", ""],
        [],
        ["b.png", "", "0.0", ""],
    ]
    text = newline.join(separator.join(row) for row in rows) + newline
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "labels.csv", ["image", "label"])
    assert table.columns == ("image", "note", "label")
    assert [line for line, _ in table.lines] == [3, 6]
    assert table.lines[0][1]["note"] == f'two{newline}lines{separator} "quoted"'
    with pytest.raises(InputError, match=r"split 'train' .* has no images for"):
        read_label_table(tmp_path / "labels.csv", tmp_path)


@pytest.mark.fault("H")
def test_excel_says_the_separator_itself(tmp_path: Path) -> None:
    table = read(tmp_path, ANIMALS)
    text = "sep=;\n" + ANIMALS.replace(",", ";")
    (tmp_path / "excel.csv").write_text(text, encoding="utf-8")
    again = read_label_table(tmp_path / "excel.csv", tmp_path)
    assert [(r.path, r.label) for r in again.rows] == [(r.path, r.label) for r in table.rows]
    assert again.rows[0].line == 3


@pytest.mark.fault("H")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04workbook", "is an Excel workbook, not a CSV file"),
        ("image,label\nJörg.png,x\n".encode("cp1252"), "is not in UTF-8.*CSV UTF-8"),
        ("image,label\n".encode("utf-16-le"), "holds zero bytes"),
        (b'image,label\n"a.png,x\nb.png,y\n', r"unexpected end of data.*quotation mark"),
        (b"image,label,image\na.png,x,b.png\n", "the column image more than once"),
        (b"image,label\nb,1.png,x\na.png\n", r"2 of 2 lines.*\n.*line 2: 3 values, .* 2 col"),
    ],
)
def test_files_that_would_be_read_wrongly(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "labels.csv", ["image", "label"])


@pytest.mark.fault("H")
@pytest.mark.parametrize(
    "written",
    [r"Sub\Fall 1.PNG", "sub/FALL 1.png", "./Sub/../Sub/Fall 1.png", "Sub/Fall 1.png", "absolute"],
)
def test_paths_from_another_system(tmp_path: Path, written: str) -> None:
    (tmp_path / "Sub").mkdir()
    image = tmp_path / "Sub" / "Fall 1.png"
    image.touch()
    assert ImageFinder(tmp_path)(str(image) if written == "absolute" else written) == image


@pytest.mark.fault("H")
def test_a_path_that_fits_several_files_fits_none(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        (tmp_path / name).touch()
    find = ImageFinder(tmp_path)
    assert find("a.png") == tmp_path / "a.png"
    assert not find("a.PNG").exists()
    with pytest.raises(InputError, match=r"no folder of images at .*absent"):
        ImageFinder(tmp_path / "absent")


@pytest.mark.fault("H")
def test_one_image_under_two_spellings_has_two_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_text("image,label\na.png,x\n./A.png,0\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3: './A.png' has a label in line 2"):
        read_label_table(tmp_path / "labels.csv", tmp_path)


@pytest.mark.fault("H")
def test_labels_that_pandas_wrote_as_fractions(tmp_path: Path) -> None:
    text = "image,slice,label\n" + "".join(f"{i}.nii,0.0,{i % 2}.0\n" for i in range(10))
    table = read(tmp_path, text, ["lesion"])
    assert [(row.slice, row.label) for row in table.rows] == [(0, 0), (0, 1)] * 5


def test_the_patient_may_have_a_column_of_another_name(tmp_path: Path) -> None:
    text = "image,label,split,patient,group\na.png,x,train,1,G\nb.png,y,train,1,H\n"
    text += "c.png,x,val,1,J\nd.png,y,val,1,J\n"
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "labels.csv").write_text(text)
    where = (tmp_path / "labels.csv", tmp_path)
    table = read_label_table(*where, patient_column="group")
    assert [row.patient for row in table.rows] == ["G", "H", "J", "J"]
    table = read_label_table(*where, patient_column="image")
    assert [row.patient for row in table.rows] == ["a.png", "b.png", "c.png", "d.png"]
    with pytest.raises(InputError, match="more than one split"):
        read_label_table(*where)
    with pytest.raises(InputError, match="no column person"):
        read_label_table(*where, patient_column="person")


# --- splits --------------------------------------------------------------------------------


@given(
    patients=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=60),
    seed=st.integers(0, 5),
)
def test_a_drawn_split_is_by_patient_and_stratified(patients: list[list[int]], seed: int) -> None:
    rows = [
        Row(0, Path(f"{p}-{i}"), None, label, f"P{p}")
        for p, labels in enumerate(patients)
        for i, label in enumerate(labels)
    ]
    drawn = draw_splits(rows, seed)
    assert drawn == draw_splits(rows, seed)
    splits = {row.patient: {r.split for r in drawn if r.patient == row.patient} for row in drawn}
    assert all(len(names) == 1 for names in splits.values())
    one_label = {f"P{p}": set(labels) for p, labels in enumerate(patients)}
    for label in range(4):
        own = [p for p, labels in one_label.items() if labels == {label}]
        if len(own) == len([p for p, labels in one_label.items() if label in labels]) > 4:
            share = sum(splits[p] == {"val"} for p in own) / len(own)
            assert share == pytest.approx(0.2, abs=0.1)


def test_patients_stay_whole_and_a_fifth_of_each_class_validates(tmp_path: Path) -> None:
    """Twenty patients with two images each; every other one shows the rare class once."""
    text = "image,label,patient\n" + "".join(
        f"{p}{i}.png,{'rare' if i == 'a' and p % 2 else 'common'},P{p}\n"
        for p in range(20)
        for i in "ab"
    )
    table = read(tmp_path, text)
    patients = {split: {i.patient for i in table.select(split)} for split in ("train", "val")}
    assert patients["train"].isdisjoint(patients["val"])
    assert len(patients["val"]) == 4
    assert table.count_labels("val") == {"common": 6, "rare": 2}
    assert "one patient in one split" in table.split_rule


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    text = "image,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(40))
    splits = [[r.split for r in read(tmp_path, text, seed=seed).rows] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert splits[0].count("val") == 8
    rule = read(tmp_path, text).split_rule
    assert "one image (the table names no patients) in one split" in rule
    assert "seed 0" in rule


# --- what is refused -----------------------------------------------------------------------


def test_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    text = (
        "image,slice,label,patient,split\n"
        "a.nii,0,x,P1,train\n"
        "absent.nii,1,x,P1,train\n"
        "a.nii,-1,x,P1,train\n"
        "a.nii,2,y,P1,train\n"
        "a.nii,0,0,P1,train\n"
        ",3,0,P1,train\n"
        "a.nii,4,0,,train\n"
        "a.nii,5,0,P1,valid\n"
    )
    with pytest.raises(InputError, match=r"labels.csv has 7 of 8 lines that cannot be") as caught:
        read(tmp_path, text, ["x"])
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  line 3: 'absent.nii' is not in {tmp_path}"
    assert lines[2] == "  line 4: slice must be a whole number from 0, got '-1'"
    assert lines[3] == "  line 5: label 'y' is none of x, 1"
    assert lines[4] == "  line 6: 'a.nii', slice 0, has a label in line 2"
    assert lines[5] == "  line 7: image is empty"
    assert lines[6] == "  line 8: patient is empty"
    assert lines[7] == "  line 9: split must be train, val or test, got 'valid'"


def test_of_many_bad_lines_the_first_are_named(tmp_path: Path) -> None:
    text = "image,label\na.png,x\n" + "".join(f"absent{i}.png,0\n" for i in range(90))
    with pytest.raises(InputError, match="has 90 of 91 lines") as caught:
        read(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 23
    assert lines[20].startswith("  line 22: 'absent19.png' is not in")
    assert lines[21:] == ["  and 70 more", "Correct or remove them."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,class\na.png,x\n", r"no column label. .*image, class"),
        ("", r"is empty\. Its first line must name the columns: image, label\."),
        (" \n\n", r"is empty\. Its first line must name"),
        ("image,label\n", r"has a header and no line below it\. Write one for each image"),
        (
            "image,label\na.png,x\nb.png,x\n",
            r"All 2 images of .* are 'x', and nothing can be",
        ),
        (
            "image,label,patient,split\na.png,x,P1,train\nb.png,y,P2,train\nc.png,x,P1,val\n",
            r"more than one split: P1 \(train and val\)",
        ),
        (
            "image,label,split\na.png,x,train\nb.png,y,train\nc.png,x,val\n",
            r"split 'val' .* has no images for: y\.",
        ),
        (
            "image,label,split\na.png,x,train\nb.png,,train\nc.png,x,val\n",
            r"split 'val' .* has no images for: no finding\.",
        ),
        ("image,label\na.png,x\nb.png,y\n", r"split 'train' .* has no images for: x"),
        ("image,label,slice,split\na.png,x,0,train\na.png,y,1,val\n", r"a.png \(train and val\)"),
    ],
)
def test_tables_that_cannot_be_learnt_from(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "got none"),
        (["cat", "Cat"], "differ in more than case"),
        (["cat", "none"], "none of none, healthy, normal, 0, background; got 'cat', 'none'"),
        (["cat", "background"], "got 'cat', 'background'"),
        (["$print(1)"], "got '.print"),
        (["cat", ""], "got 'cat', ''"),
    ],
)
def test_names_that_are_no_classes(tmp_path: Path, classes: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read(tmp_path, ANIMALS, classes)


def test_classes_of_the_table_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 of 7 lines .*\n  line 3: label 'dog' is none of cat"):
        read(tmp_path, ANIMALS, ["cat"])
    with pytest.raises(InputError, match="no images of cow"):
        read(tmp_path, ANIMALS, ["cat", "dog", "cow"])


def test_labels_of_0_and_1_need_a_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"segment needs a name. .*--classes tumour"):
        read(tmp_path, "image,label\na.png,0\nb.png,1\n")


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels.csv cannot be read: No such file"):
        read_label_table(tmp_path / "labels.csv", tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"image,label\n\xff\xfe\n")
    with pytest.raises(InputError, match="is not in UTF-8"):
        read_label_table(tmp_path / "labels.csv", tmp_path)
