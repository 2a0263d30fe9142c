# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from msgspec.structs import replace

from nereid_shared.messages import TaskModel
from nereid_worker.slots import FILE, Slots, same_file

A, B, C = (TaskModel(name="m", url=f"/{name}") for name in "abc")


def slots(folder: Path, *, machine: str = "boot") -> Slots:
    return Slots(folder, machine=machine)


def test_the_first_model_has_no_probation(tmp_path: Path) -> None:
    first = slots(tmp_path)
    first.serve(A)
    assert not first.is_on_probation
    assert (slots(tmp_path).present, slots(tmp_path).rolled_back) == (A, None)


def test_a_crash_on_probation_puts_the_former_model_back(tmp_path: Path) -> None:
    life = slots(tmp_path)
    life.serve(A)
    life.serve(B)
    assert life.is_on_probation
    after = slots(tmp_path)
    assert (after.present, after.rolled_back) == (A, B)
    assert after.refuses(B)
    assert not after.refuses(replace(B, sha256="0" * 64))
    after.serve(A)
    assert slots(tmp_path).refuses(B), "over further crashes, too"


@pytest.mark.parametrize("how", ["passed", "ended"])
def test_a_model_that_passed_or_whose_process_ended_in_order_stays(tmp_path: Path, how: str) -> None:
    life = slots(tmp_path)
    life.serve(A)
    life.serve(B)
    getattr(life, how)()
    assert (slots(tmp_path).present, slots(tmp_path).rolled_back) == (B, None)


def test_the_probation_goes_on_in_the_next_life(tmp_path: Path) -> None:
    life = slots(tmp_path)
    life.serve(A)
    life.serve(B)
    life.ended()
    second = slots(tmp_path)
    second.serve(B)
    assert second.is_on_probation
    assert slots(tmp_path).rolled_back == B


def test_a_machine_that_starts_anew_blames_no_model(tmp_path: Path) -> None:
    life = slots(tmp_path, machine="boot-1")
    life.serve(A)
    life.serve(B)
    after = slots(tmp_path, machine="boot-2")
    assert (after.present, after.rolled_back) == (B, None)
    after.serve(B)
    assert after.is_on_probation


def test_another_model_after_a_roll_back_clears_it(tmp_path: Path) -> None:
    life = slots(tmp_path)
    life.serve(A)
    life.serve(B)
    after = slots(tmp_path)
    after.serve(C)
    assert not after.refuses(B)
    assert slots(tmp_path).present == A, "from C, which was on probation, back to A"


def test_two_models_in_a_row_go_back_to_the_last_that_passed(tmp_path: Path) -> None:
    life = slots(tmp_path)
    for model in (A, B, C):
        life.serve(model)
    assert slots(tmp_path).present == A


def test_going_back_by_oneself_is_no_trial(tmp_path: Path) -> None:
    life = slots(tmp_path)
    for model in (A, B, A):
        life.serve(model)
    assert not life.is_on_probation
    assert (slots(tmp_path).present, slots(tmp_path).rolled_back) == (A, None)


def test_a_damaged_file_begins_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    assert slots(tmp_path).present is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    life = slots(tmp_path / "nowhere")
    life.serve(A)
    life.serve(B)
    assert life.present == B


def test_a_name_makes_no_other_file() -> None:
    assert same_file(A, replace(A, name="other"))
    assert not same_file(A, replace(A, path="/cache/a"))
