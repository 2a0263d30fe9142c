# SPDX-License-Identifier: Apache-2.0
"""What a spec that says nothing means: read by the CRDs' schemas, and by those that must not load the resources."""

from types import MappingProxyType
from typing import Final

BUILTIN_PREFIX: Final = "builtin:"
CLASSIFY: Final = f"{BUILTIN_PREFIX}classify"

DATASET_SUFFIXES: Final = MappingProxyType(
    {
        "csv": (".csv",),
        "txt": (".txt",),
        "xml": (".xml",),
        "coco": (".json",),
        "yolo": (".yaml", ".yml"),
        "jsonl": (".jsonl", ".ndjson"),
        "folder": (),
        "parquet": (".parquet",),
        "tfrecord": (".tfrecord", ".tfrecords"),
    }
)
"""A dataset's formats, each with the endings of a file that a Dataset's ``dataUrl`` may name beside a folder."""

DATASET_FORMATS: Final = tuple(DATASET_SUFFIXES)
"""What the LocalController counts; a script may open anything else by itself."""

MAX_CLASSES: Final = 50
MAX_PROBLEMS: Final = 5
"""Of a dataset, named in its status."""

DEADLINE: Final = "1s"

OUTBOX_KEEP_FOR: Final = "1h"
OUTBOX_MAX_BYTES: Final = "256Mi"
OUTBOX_MAX_SAMPLES: Final = 10_000
OUTBOX_MAX_ATTEMPTS: Final = 10

SERVING_PORT: Final = 8501
"""TensorFlow Serving's port for REST, which the seed's sample names."""

BATCH_SIZE: Final = 8
BATCH_WAIT: Final = "5ms"
