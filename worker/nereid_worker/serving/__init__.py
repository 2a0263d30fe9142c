# SPDX-License-Identifier: Apache-2.0
"""The serving worker: one model in several versions, answered over HTTP.

    request ▸ protocol (Open Inference v2, TensorFlow Serving's REST) ▸ a version's batches ▸ its model ▸ answer
    task ▸ versions: fetch, load, self-test beside the old ▸ swap between two requests

Whoever asks without a version gets the target's answer, and the former target's until the new one has passed its test.
"""
