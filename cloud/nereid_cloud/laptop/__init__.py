# SPDX-License-Identifier: Apache-2.0
"""A whole system on one machine: processes, brokers, links and Pods without a cluster."""
