# SPDX-License-Identifier: Apache-2.0
"""A complete cloud script: the service's big model, with a second look at what it is unsure of."""

from nereid_worker import CloudWorker

worker = CloudWorker.from_task()
model = worker.classifier
floor = float(worker.parameters.get("floor", "0.4"))


def predict(pictures):
    """Return for each picture a (label, score), a Prediction, or a BadSample."""
    answers = model.predict_batch(pictures)
    return [("unsure", a.score) if getattr(a, "score", 1.0) < floor else a for a in answers]


worker.serve(predict)
