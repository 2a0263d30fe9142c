# SPDX-License-Identifier: Apache-2.0
# make demo | make test | make check | make bench. Each sets up what it needs: a virtual environment from uv.lock, and
# Mosquitto from the distribution's packages where it is missing and you are root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
READY := $(VENV)/.ready
PATH := $(PATH):/usr/sbin

export UV_PYTHON_DOWNLOADS := never
# For networks that are slow or fail once; the defaults are 30 s and 3 tries, and of pip 15 s and 5.
export UV_HTTP_TIMEOUT ?= 120
export UV_HTTP_RETRIES ?= 5
export PIP_DEFAULT_TIMEOUT ?= 60
export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: demo test test-cluster check bench images setup crds clean

demo: setup
	@$(BIN)/nereid demo $(DEMO) $(ARGS)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not node" $(ARGS)

# make test-cluster KUBECONFIG=FILE EDGE_NODE=NAME: on a cluster of yours, with a node that runs the project's images.
# Without them: on one that is made here. A KUBECONFIG of the environment is not meant.
test-cluster: setup
	$(if $(filter command%,$(origin KUBECONFIG)),NEREID_TEST_KUBECONFIG=$(abspath $(KUBECONFIG))) \
	$(if $(EDGE_NODE),NEREID_TEST_EDGE_NODE=$(EDGE_NODE)) \
	$(BIN)/python -m pytest -m "cluster or node" $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests bench
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not cluster and not node" $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)

# make images | make images ARCH="amd64 arm64": OCI archives in dist/images, with docker, podman or buildah.
images: setup
	sh images/build.sh $(ARCH)

crds: setup
	$(BIN)/python -m nereid_cloud.crds

setup: $(READY)
	@sh mosquitto/install.sh

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Nereid needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "python3 -m venv does not work here. Install it, for instance: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv sync --quiet --frozen --inexact --all-extras
	@touch $@

clean:
	rm -rf $(VENV) dist build
