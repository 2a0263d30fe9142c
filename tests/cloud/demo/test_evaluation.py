# SPDX-License-Identifier: Apache-2.0
"""What the workers' logs of answers say, read as they grow."""

import json
from pathlib import Path
from typing import Any

from nereid_cloud.demo.evaluation import AnswerLog


def line(event: str, key: str, label: str, **more: Any) -> str:
    fields = {"is_hard": True, "degraded": False, "latency_ms": 1.0, "cloud_label": None, **more}
    return json.dumps({"event": event, "key": key, "label": label, **fields}) + "\n"


def test_a_line_that_is_not_whole_is_read_when_it_is(tmp_path: Path) -> None:
    path, log = tmp_path / "answers.jsonl", AnswerLog()
    log.follow(path)
    whole = line("edge", "a", "1")
    path.write_text(whole[:20])
    log.follow(path)
    assert log.said == {}
    path.write_text(whole + line("correction", "a", "7", cloud_label="7"))
    log.follow(path)
    said = log.said["a"]
    assert (said.edge, said.live, said.final, said.corrected, said.is_answered) == ("1", "1", "7", True, True)


def test_a_log_that_begins_anew_is_read_on(tmp_path: Path) -> None:
    path, log = tmp_path / "answers.jsonl", AnswerLog()
    path.write_text(line("edge", "a", "1") * 3)
    log.follow(path)
    with path.open("a") as file:
        file.write(line("edge", "b", "2"))
    path.replace(tmp_path / "answers.jsonl.1")
    path.write_text(line("edge", "c", "3"))
    log.follow(path)
    assert {key: said.edge for key, said in log.said.items()} == {"a": "1", "b": "2", "c": "3"}
