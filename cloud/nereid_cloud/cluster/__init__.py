# SPDX-License-Identifier: Apache-2.0
"""The cluster port and its adapters."""
