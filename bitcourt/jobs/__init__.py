# SPDX-License-Identifier: GPL-3.0-or-later
"""Training jobs that ship with Bitcourt, as examples to copy."""
