# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario lab: whole tasks on the embedded chain, with honest and cheating parties."""
