# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage a scenario: `python scripts/simulate.py NAME [--rpc URL] [--json]`, `list` names them all.

The same as `bitcourt simulate`, from a checkout whether the package is installed or not.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bitcourt.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["simulate"]
    main()
