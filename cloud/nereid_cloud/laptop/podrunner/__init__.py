# SPDX-License-Identifier: Apache-2.0
"""The PodRunner: runs the Pods bound to one node as host processes, through the cluster port.

It is the kubelet of a laptop and of the quick tests. There are no images, namespaces or limits: a container is its
command, run by a small `shim` that outlives the PodRunner, so that a restarted PodRunner adopts what runs and
learns every exit code, also of what ended while it was away.
"""
