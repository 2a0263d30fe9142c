# SPDX-License-Identifier: Apache-2.0
"""The GlobalManager: controllers, downstream and upstream."""
