# SPDX-License-Identifier: Apache-2.0
"""``nereid datasets``: what it prints, and its exit codes."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.shared.datasets import scenes

TIMEOUT_S = 60


def nereid(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nereid_cloud.cli", "datasets", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.yolo(tmp_path_factory.mktemp("datasets") / "yolo")


def test_stats_are_a_table(yolo: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("x,class\n1,[red]\n2,[red]\n")
    done = nereid("stats", yolo, table)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == [
        "PATH",
        "FORMAT",
        "SAMPLES",
        "LABELLED",
        "BOXES",
        "CLASSES",
        "MALFORMED",
        "MISSING",
        "CORRUPT",
        "SIZES",
    ]
    assert lines[1] == [str(yolo), "yolo", "3", "2", "3", "2", "0", "0", "0", "8x8", "to", "40x60"]
    assert lines[2] == [str(table), "csv", "2", "2", "0", "1", "0", "0", "0"]
    assert ["cat", "2"] in lines
    assert ["[red]", "2"] in lines


def test_stats_are_json_for_programs(yolo: Path) -> None:
    done = nereid("stats", yolo, "-o", "json")
    (found,) = json.loads(done.stdout)
    assert (found["path"], found["format"], found["numberOfSamples"]) == (str(yolo), "yolo", 3)
    assert found["statistics"]["classes"] == {"cat": 2, "dog": 1}
    assert found["statistics"]["digest"].startswith("sha256:")
    assert "schema" not in found["statistics"]


def test_progress_is_shown_to_a_terminal_alone(yolo: Path) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "nereid_cloud.cli", "datasets", "stats", str(yolo), "-o", "json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the terminal's other end is closed
            while data := os.read(ours, 4096):
                shown += data
        assert process.stdout is not None
        assert json.loads(process.stdout.read())[0]["numberOfSamples"] == 3
    os.close(ours)
    assert b"yolo" in shown


def test_a_sound_dataset_is_said_to_be_sound(yolo: Path) -> None:
    done = nereid("validate", yolo)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{yolo}: yolo, no problem found\n", "")


def test_each_problem_is_named_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    folder = scenes.yolo(tmp_path / "yolo")
    (folder / "labels" / "val" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.5\n")
    (folder / "labels" / "val" / "b.txt").write_text("0 0.9 0.5 0.5 0.1\n")
    (folder / "images" / "val" / "c.png").write_bytes(b"no picture")
    done = nereid("validate", folder)
    assert done.returncode == 2
    labels = folder / "labels" / "val"
    assert done.stdout.splitlines() == [
        f"{labels}/a.txt:2: a line has a class, x, y, width and height, or a polygon's corners."
        " Mend it, or take it out.",
        f"{labels}/b.txt: box 1 (cat) of images/val/b.jpg leaves its 30x60 pixels. Mend its corners.",
        f"{labels}/c.txt: images/val/c.png is no whole JPEG or PNG file. Write it again.",
    ]
    assert done.stderr == "error: 3 problems found. Mend what is named.\n"


def test_a_row_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(scenes.picture(4, 4))
    index = tmp_path / "i.csv"
    index.write_text('label,path\n"two\nlines",a.png\n7\n8,gone.png\n')
    done = nereid("validate", index, "--limit", "1")
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        f"{index}:4: column 2 names no picture. Mend it, or take it out.",
        f"{index}: 1 more. Give a larger --limit to see them.",
    ]
    (found,) = json.loads(nereid("validate", index, "-o", "json").stdout)
    assert found["problems"][1].startswith(f"{index}:5: gone.png is missing: No such file or directory. Put")


def test_a_row_of_pictures_that_names_none_is_a_problem_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(scenes.picture(4, 4))
    index = tmp_path / "i.csv"
    index.write_text("path,label\na.png,1\n/etc/hostname,1\n../secret,1\n")
    done = nereid("validate", index)
    outside = "lies outside of the dataset's folder. Move it into the folder."
    assert done.stdout.splitlines() == [f"{index}:3: /etc/hostname {outside}", f"{index}:4: ../secret {outside}"]
    numbers = tmp_path / "n.csv"
    numbers.write_text("length,width,class\n1.5,2.5,small\n")
    assert nereid("validate", numbers).returncode == 0


@pytest.mark.parametrize("command", ["stats", "validate"])
def test_a_file_that_cannot_be_read_says_where_and_what_to_do(tmp_path: Path, command: str) -> None:
    file = tmp_path / "d.json"
    file.write_text('{"images": [')
    done = nereid(command, file)
    assert done.returncode == 2
    assert f"{file}: no whole JSON at byte 12: it ends too early. Write the file again" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_is_not_there_is_the_users_to_mend(tmp_path: Path) -> None:
    done = nereid("stats", tmp_path / "none")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/none: there is no such file or folder. Mend the path.\n",
    )


def test_a_file_whose_name_tells_no_format_wants_one(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("path\na.png\n")
    done = nereid("stats", tmp_path / "data")
    assert (done.returncode, "Give --format" in done.stderr) == (2, True)
    assert nereid("stats", tmp_path / "data", "--format", "csv").returncode == 0


def test_datasets_are_converted(yolo: Path, tmp_path: Path) -> None:
    done = nereid("convert", yolo, "--to", "coco", "--out", tmp_path / "coco")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/coco: coco, 3 samples\n"), done.stderr
    done = nereid("convert", tmp_path / "coco", yolo, "--to", "folder", "--out", tmp_path / "all", "--lossy")
    assert (done.returncode, done.stderr) == (0, "left out: 3 boxes\n" * 2)
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"coco", "yolo"}
    again = nereid("convert", yolo, "--to", "coco", "--out", tmp_path / "coco")
    assert (again.returncode, again.stderr) == (2, f"error: {tmp_path}/coco: it is there already. Name a new folder.\n")
