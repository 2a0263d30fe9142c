# SPDX-License-Identifier: Apache-2.0
"""The LocalController: one per edge node, the only component with a foot on both brokers."""
