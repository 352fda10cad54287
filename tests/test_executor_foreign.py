# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernels compute the same bits on AArch64, as far as an emulator shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.executor.canary import CANARY_DIGEST, CANARY_STEP, canary
from protocol.reference import ReferenceExecutor
from tests import foreign
from tests.executing import assert_equal
from tests.hand_built import HAND_BUILT, case_of

pytestmark = pytest.mark.skipif(
    bool(foreign.missing_tools()),
    reason=f"not installed: {', '.join(foreign.missing_tools())} (Debian: qemu-user-static, "
    "binutils-aarch64-linux-gnu)",
)


def test_canary_has_its_digest_on_aarch64(tmp_path: Path) -> None:
    program, state, inputs = canary()
    found = foreign.trace(program, state, inputs, CANARY_STEP, tmp_path)
    assert foreign.digest(found) == CANARY_DIGEST


@pytest.mark.parametrize("name", HAND_BUILT)
def test_hand_built_programs_have_the_bits_of_the_reference_on_aarch64(
    name: str, tmp_path: Path
) -> None:
    case = case_of(HAND_BUILT[name](), seed=1)
    wanted = ReferenceExecutor(case.program, case.inputs).trace(case.state, case.step)
    found = foreign.trace(case.program, case.state, case.inputs, case.step, tmp_path)
    for node, mine, other in zip(case.program.nodes, found, wanted, strict=True):
        assert_equal(mine, other, node)
