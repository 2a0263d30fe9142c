# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_worker.predict``: what a model says of pictures, or of itself, as JSON on stdout.

The `nereid` command runs it as a process of its own, since only workers may import LiteRT.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from nereid_shared.card import model_path
from nereid_shared.errors import BadSample, ModelInvalid, NereidError
from nereid_worker.classifier import Classifier
from nereid_worker.litert import Interpreter

BEST: Final = 5


def describe(path: Path) -> dict[str, Any]:
    """Return what the file and its tensors tell, without a card: ``file``, ``input``, ``output``.

    Raises:
        ModelInvalid: the file is missing, broken, or not a classifier.
    """
    file = model_path(path)
    content = file.read_bytes()
    interpreter = Interpreter(content, where=str(file))
    return {
        "file": {"name": file.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
        "input": asdict(interpreter.input),
        "output": asdict(interpreter.output),
    }


def predicted(model: Classifier, path: Path) -> dict[str, Any]:
    """Return the answer to one picture: ``path, label, score, top, output``, or ``path, error, message``.

    ``output`` is the model's output before any softmax, as a card's golden outputs have it.
    """
    try:
        data = path.read_bytes()
        answer = model.predict(data)
    except OSError as error:
        return {"path": str(path), "error": "unreadable", "message": error.strerror}
    except BadSample as error:
        return {"path": str(path), "error": error.reason, "message": str(error)}
    best = answer.probabilities.argsort()[::-1][:BEST]
    return {
        "path": str(path),
        "label": answer.label,
        "score": answer.score,
        "top": [[model.labels[i], float(answer.probabilities[i])] for i in best],
        "output": model.interpreter.run(model.preprocessor.one(data))[0].ravel().tolist(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line per picture; 1 where a picture has no answer, 2 where the model cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m nereid_worker.predict", description="Run a model on pictures.")
    parser.add_argument("model", type=Path, help="a .tflite file with its model.json beside it, or their folder")
    parser.add_argument("images", type=Path, nargs="*", help="JPEG or PNG files")
    parser.add_argument("--describe", action="store_true", help="print the tensors instead; needs no card")
    given = parser.parse_args(arguments)
    try:
        if given.describe:
            _print(describe(given.model))
            return 0
        model = Classifier.load(given.model)
    except NereidError as error:
        reason = f"{error.reason}: " if isinstance(error, ModelInvalid) else ""
        sys.stderr.write(f"{reason}{error}\n")
        return 2
    for warning in model.warnings:
        sys.stderr.write(f"{warning}\n")
    failed = 0
    for path in given.images:
        line = predicted(model, path)
        failed += "error" in line
        _print(line)
    return 1 if failed else 0


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
