# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled contracts that ship with the package.

No compiler is needed at run time: `make contracts` writes `protocol/compiled/*.json` and a test
compiles again and compares.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

from protocol.errors import ArtifactError


class Artifact(NamedTuple):
    """One compiled contract.

    `abi` is the list that solc gives. `bytecode` deploys the contract (constructor arguments are
    appended to it); `deployed_bytecode` is what then lies on chain, with its immutables still zero.
    """

    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes


def names() -> list[str]:
    """Return the names of the contracts that ship, in alphabetical order (mocks not included)."""
    folder = resources.files("protocol") / "compiled"
    if not folder.is_dir():
        return []
    return sorted(
        entry.name.removesuffix(".json")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )


@functools.cache
def load(name: str) -> Artifact:
    """Return the contract called `name`, mocks included where this is a checkout.

    Raises ArtifactError when there is none of that name or its file is damaged. The returned abi is
    shared between callers: do not change it.
    """
    folder = resources.files("protocol") / "compiled"
    # A name is an identifier, so it can never be a path that leaves the folder.
    places = [folder / f"{name}.json", folder / "mocks" / f"{name}.json"]
    found = next((place for place in places if name.isidentifier() and place.is_file()), None)
    if found is None:
        raise ArtifactError(f"no compiled contract {name!r}; there are: {', '.join(names())}")
    try:
        content = json.loads(found.read_text(encoding="utf-8"))
        return Artifact(
            abi=content["abi"],
            bytecode=bytes.fromhex(content["bytecode"].removeprefix("0x")),
            deployed_bytecode=bytes.fromhex(content["deployed_bytecode"].removeprefix("0x")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"the compiled contract {name!r} is damaged: {error!r}") from error
