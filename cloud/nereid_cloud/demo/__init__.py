# SPDX-License-Identifier: Apache-2.0
"""The demo: handwritten digits through a whole system on one machine, with a link that breaks and heals."""
