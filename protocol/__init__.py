# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared core of Bitcourt."""
