# SPDX-License-Identifier: Apache-2.0
"""What only the command does with datasets: it checks them whole, and writes them in other formats."""
