# SPDX-License-Identifier: Apache-2.0
"""A complete edge script: answers into a table, corrected when the cloud was late."""

import sqlite3

from nereid_worker import Answer, JointInference

service = JointInference.from_task()
table = sqlite3.connect(service.parameters.get("out", "answers.sqlite"), isolation_level=None)
table.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, label TEXT, score REAL, tier TEXT)")


def store(answer: Answer) -> None:
    row = (answer.key, answer.label, answer.score, answer.tier)
    table.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)


service.on_correction = store
for answer in service.stream():  # the service's dataset; `camera()` instead for a live picture
    if answer.error:
        print(f"{answer.key}: {answer.error}")
    else:
        store(answer)
