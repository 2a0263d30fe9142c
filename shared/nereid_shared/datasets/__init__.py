# SPDX-License-Identifier: Apache-2.0
"""Datasets: each format read in one place, for who counts them, who serves their pictures and who converts them.

A format is a module here, of one of two protocols (`nereid_shared.datasets.sample`): `Listed`, where index files name
the samples in an order of their own (csv, txt, jsonl, coco, parquet, tfrecord), or `Found`, where each sample is a file
(xml, yolo, folder). Until a Parquet or TFRecord file is read, nothing is imported but msgspec and the standard library.
"""

from nereid_shared.datasets.dataset import Dataset, path_of
from nereid_shared.datasets.known import Known
from nereid_shared.datasets.sample import Box, Sample
from nereid_shared.datasets.summing import Reading, read

__all__ = ["Box", "Dataset", "Known", "Reading", "Sample", "path_of", "read"]
