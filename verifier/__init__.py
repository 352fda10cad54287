# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier: replays, seals, attests or challenges."""
