# SPDX-License-Identifier: Apache-2.0
"""Measurements: each a ratio against a baseline in the same run, since absolute figures are the machine's."""
