# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploy Bitcourt's contracts: `brownie run deploy --network NAME`.

`deployment` is the whole wiring, in order; the constants above it are what a market may be given,
such as the token it pays in. A constructor argument is given by its name in the
Solidity source; a value that names a contract of the table stands for that contract's address, also
if it comes later: the address of a contract follows from its deployer and nonce, so two contracts
can each hold the other in an immutable.

The addresses are printed and written to `build/addresses/<chain id>.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from rlp import encode as rlp_encode


class Step(NamedTuple):
    """One contract to deploy and its constructor's arguments by name."""

    contract: str
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed


VERIFIER_STAKE = 10**18  # wei, what a verifier must lock to be drawn
MIN_WINDOW = 600  # seconds, the shortest window and clock that terms may have
TOKEN = "0x" + 40 * "0"  # address of an ERC-20 token; zero: the chain's own currency


def deployment(
    token: str = TOKEN, verifier_stake: int = VERIFIER_STAKE, min_window: int = MIN_WINDOW
) -> tuple[Step, ...]:
    """Return the table of a market with these terms: of the chain's currency or an ERC-20 token,
    and in its smallest unit what a verifier must lock.
    """
    terms = {"game": "DisputeGame", "token": token, "verifierStake": verifier_stake}
    pieces = {"remedies": "Remedies", "registry": "Registry", "minWindow": min_window}
    return (
        Step("Referee"),
        Step("DisputeGame", {"referee": "Referee"}),
        Step("Remedies", terms),
        Step("Registry", terms),
        Step("Market", {**terms, **pieces}),
    )


DEPLOYMENT = deployment()


class DeploymentError(Exception):
    """The table does not fit the contracts, or a contract landed where it was not expected."""


def create_address(deployer: str, nonce: int) -> str:
    """Return the checksummed address that CREATE gives: keccak256(rlp([sender, nonce]))[12:]."""
    sender = bytes.fromhex(deployer.removeprefix("0x"))
    return str(to_checksum_address(keccak(rlp_encode([sender, nonce]))[12:]))


def constructor_arguments(
    step: Step, abi: Sequence[dict[str, Any]], addresses: dict[str, str]
) -> list[Any]:
    """Put a step's arguments into the constructor's order, names of contracts resolved.

    Raises DeploymentError when an argument is missing or superfluous.
    """
    constructors = [item for item in abi if item["type"] == "constructor"]
    wanted = [item["name"] for item in constructors[0]["inputs"]] if constructors else []
    if set(wanted) != set(step.arguments):
        raise DeploymentError(
            f"the constructor of {step.contract} takes {wanted}, the table has"
            f" {list(step.arguments)}"
        )
    values = [step.arguments[name] for name in wanted]
    return [addresses.get(v, v) if isinstance(v, str) else v for v in values]


def deploy(project: Any, deployer: Any, steps: Sequence[Step] = DEPLOYMENT) -> dict[str, str]:
    """Deploy `steps` from a brownie project and account; return the addresses by contract.

    Raises DeploymentError; a transaction that fails raises what brownie raises.
    """
    first = int(deployer.nonce)
    addresses = {
        step.contract: create_address(str(deployer), first + offset)
        for offset, step in enumerate(steps)
    }
    for step in steps:
        container = project[step.contract]
        arguments = constructor_arguments(step, container.abi, addresses)
        # Not container.deploy(): brownie 1.22.2 fails to record deployments on live networks.
        receipt = deployer.transfer(data=container.deploy.encode_input(*arguments), silent=True)
        if str(receipt.contract_address) != addresses[step.contract]:
            raise DeploymentError(
                f"{step.contract} is at {receipt.contract_address}, not at the expected"
                f" {addresses[step.contract]}: did the account send something else meanwhile?"
            )
    return addresses


def main(account: str = "") -> dict[str, str]:
    """Deploy everything with brownie's account of that name, or the first unlocked one."""
    from brownie import accounts, network
    from brownie import project as projects

    deployer = accounts.load(account) if account else accounts[0]
    loaded = projects.get_loaded_projects()[0]
    addresses = deploy(loaded, deployer)
    file = Path(loaded._path) / "build" / "addresses" / f"{network.chain.id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(addresses, indent=2) + "\n")
    for name, address in addresses.items():
        print(f"{name:<16} {address}")
    return addresses
