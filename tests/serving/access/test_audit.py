"""The audit log: whole lines, private files, an end to their number."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from heatmask.serving.access.audit import Audit
from heatmask.serving.access.person import Person, Role

ANNA = Person("anna", Role.REVIEWER)


def read(audit: Audit) -> list[dict]:
    return [json.loads(line) for line in audit.path.read_text(encoding="ascii").splitlines()]


def test_a_line_says_who_did_what_to_which_image(tmp_path):
    audit = Audit(tmp_path / "access")
    audit.record(ANNA, "submit", "p1-flair", version=3, model="gp_unet", result="done")
    (line,) = read(audit)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "person": "anna", "role": "reviewer", "action": "submit", "image": "p1-flair",
        "version": 3, "model": "gp_unet", "result": "done",
    }  # fmt: skip
    assert stat.S_IMODE(audit.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(audit.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("fact", ["name", "patient", "PatientName", "params", "file"])
def test_it_takes_no_names_of_patients(tmp_path, fact):
    with pytest.raises(TypeError, match=fact):
        Audit(tmp_path).record(ANNA, "send", "s1", **{fact: "Doe^John"})


def test_no_value_can_begin_another_line(tmp_path):
    audit = Audit(tmp_path)
    text = 'x\n{"person": "otto"}\r\u2028\x00"'
    audit.record(Person(text, Role.ADMIN), text, text, reason=text)
    (line,) = read(audit)
    assert line["image"] == line["reason"] == line["person"] == text
    assert audit.path.read_bytes().count(b"\n") == 1


def test_it_is_rotated_and_keeps_the_newest(tmp_path):
    audit = Audit(tmp_path, max_bytes=1000, kept=3)
    for number in range(100):
        audit.record(ANNA, "infer", f"image-{number}")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"
    ]  # fmt: skip
    lines = [
        json.loads(line)["image"]
        for file in (*reversed(files[1:]), files[0])
        for line in file.read_text(encoding="ascii").splitlines()
    ]
    assert lines == [f"image-{number}" for number in range(100 - len(lines), 100)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert max(file.stat().st_size for file in files) <= 1000


def test_many_threads_lose_no_line(tmp_path):
    audit = Audit(tmp_path, max_bytes=5000, kept=50)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: audit.record(ANNA, "infer", f"image-{n}"), range(500)))
    images = [
        json.loads(line)["image"]
        for file in tmp_path.iterdir()
        for line in file.read_text(encoding="ascii").splitlines()
    ]
    assert sorted(images) == sorted(f"image-{number}" for number in range(500))


def test_a_full_disk_is_an_error_in_the_log(tmp_path, caplog):
    audit = Audit(tmp_path)
    audit.path.mkdir()
    audit.record(ANNA, "submit", "p1")
    assert "The audit log cannot be written" in caplog.text
    assert '"image": "p1"' in caplog.text
