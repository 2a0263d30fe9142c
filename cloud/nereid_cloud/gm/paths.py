# SPDX-License-Identifier: Apache-2.0
"""Which folders of its node a worker reads, from the URLs of models and datasets and the folder of its script."""

from pathlib import PurePosixPath
from typing import Final

from nereid_cloud.cluster.port import Object
from nereid_shared.defaults import DATASET_SUFFIXES
from nereid_shared.places import node_path
from nereid_shared.resources import WorkerSpec

CONFIG_MAP: Final = "configmap:"


def model_folder(model: Object) -> PurePosixPath | None:
    """Return the folder with a model's file and its card."""
    path = node_path(model["spec"]["modelUrl"])
    return None if path is None else path.parent


def dataset_path(dataset: Object) -> PurePosixPath | None:
    """Return what the worker reads: an index lists files beside it, so then it is the index file's folder.

    Nobody here can look at the node: an index is what ends as files of the dataset's format do, not ``/data/v1.2``.
    """
    path = node_path(dataset["spec"]["dataUrl"])
    if path is None:
        return None
    form = dataset["spec"]["format"]
    return path.parent if path.suffix.lower() in DATASET_SUFFIXES.get(form, (f".{form}",)) else path


def script_folder(spec: WorkerSpec) -> PurePosixPath | None:
    """Return the folder of a user's script on the node; None for a builtin, or one that comes as a ConfigMap."""
    folder = spec.script_dir
    return PurePosixPath(folder) if folder and not folder.startswith(CONFIG_MAP) else None


def script_config_map(spec: WorkerSpec) -> str:
    """Return the name of the ConfigMap that holds the script, or ""."""
    return spec.script_dir.removeprefix(CONFIG_MAP) if spec.script_dir.startswith(CONFIG_MAP) else ""
