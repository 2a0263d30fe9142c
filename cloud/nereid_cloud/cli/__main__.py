# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_cloud.cli`` is the nereid command."""

from nereid_cloud.cli import main

main()
