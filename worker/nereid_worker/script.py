# SPDX-License-Identifier: Apache-2.0
"""Where a task's own script is, for edge and cloud workers alike."""

from pathlib import Path

from nereid_shared.errors import UserError


def script_file(folder: str, name: str) -> Path:
    """Return the script's file.

    Raises:
        UserError: it is not there (yet).
    """
    file = Path(folder, name)
    if not file.is_file():
        raise UserError(
            "there is no such file on this node",
            where=str(file),
            mend="Copy the script there.",
            reason="ScriptNotFound",
        )
    return file
