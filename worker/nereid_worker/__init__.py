# SPDX-License-Identifier: Apache-2.0
"""SDK and runtimes of the workers: the little model at the edge, the big model in the cloud."""
