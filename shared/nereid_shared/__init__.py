# SPDX-License-Identifier: Apache-2.0
"""The contract between cloud, edge and workers: resources, topics, messages, codecs and the MQTT link."""
