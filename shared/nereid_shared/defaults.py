# SPDX-License-Identifier: Apache-2.0
"""What a spec that says nothing means: read by the CRDs' schemas, and by those that must not load the resources."""

from typing import Final

BUILTIN_PREFIX: Final = "builtin:"
CLASSIFY: Final = f"{BUILTIN_PREFIX}classify"

DATASET_FORMATS: Final = ("csv", "txt")
"""What the LocalController counts and the worker reads; a script may open a folder by itself."""

DEADLINE: Final = "1s"

OUTBOX_KEEP_FOR: Final = "1h"
OUTBOX_MAX_BYTES: Final = "256Mi"
OUTBOX_MAX_SAMPLES: Final = 10_000
OUTBOX_MAX_ATTEMPTS: Final = 10

SERVING_PORT: Final = 8501
"""TensorFlow Serving's port for REST, which the seed's sample names."""
