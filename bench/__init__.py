# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed, as ratios measured in one run. `make bench` writes bench/results.json."""
