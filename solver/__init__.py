# SPDX-License-Identifier: GPL-3.0-or-later
"""The solver: bids, trains, commits, defends."""
