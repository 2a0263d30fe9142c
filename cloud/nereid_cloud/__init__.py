# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager, the cluster port with its adapters, and the nereid command."""
