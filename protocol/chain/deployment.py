# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the contracts lie: deployed once, then read from a small JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eth_utils.address import is_address
from web3.contract import Contract

from protocol.chain.client import Account, Chain
from protocol.errors import ChainError, UsageError

NATIVE = "0x" + 40 * "0"
"""Instead of the address of a token: the chain's own currency."""
DEFAULT_VERIFIER_STAKE = 10**18
DEFAULT_MIN_WINDOW = 600

_ACCOUNT, _AMOUNT = ({"name": "", "type": kind} for kind in ("address", "uint256"))
TOKEN_ABI = [
    {
        "type": "function",
        "name": name,
        "inputs": inputs,
        "outputs": outputs,
        "stateMutability": mutability,
    }
    for name, inputs, outputs, mutability in (
        ("balanceOf", [_ACCOUNT], [_AMOUNT], "view"),
        ("approve", [_ACCOUNT, _AMOUNT], [], "nonpayable"),
    )
]
"""What an account needs of a token (ERC-20). Old tokens return nothing where others return true."""


@dataclass(frozen=True)
class Deployment:
    """Addresses on one chain. `block` is where its events begin."""

    chain_id: int
    referee: str
    game: str
    market: str
    block: int
    token: str = NATIVE
    """What the market takes: the address of an ERC-20 token, NATIVE for the chain's own."""
    gas: dict[str, int] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the JSON file that `load` reads."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Reads a deployment file; UsageError says what is wrong with it."""
        try:
            found = cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise UsageError(f"no deployment file at {path}: run `bitcourt deploy` first") from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path} is not a deployment file: {error}") from None
        for name in ("referee", "game", "market", "token"):
            if not is_address(getattr(found, name)):
                raise UsageError(f"{path} is not a deployment file: {name} is no address")
        if not isinstance(found.chain_id, int) or not isinstance(found.block, int):
            raise UsageError(f"{path} is not a deployment file: chain_id and block are numbers")
        return found

    def contracts(self, chain: Chain) -> Contracts:
        """The contracts, after a check that this is their chain."""
        if chain.chain_id != self.chain_id:
            raise ChainError(
                f"the deployment is on chain {self.chain_id}, but the RPC endpoint is chain "
                f"{chain.chain_id}: use the RPC URL or the deployment file of the other"
            )
        return Contracts(
            chain.contract("Referee", self.referee),
            chain.contract("DisputeGame", self.game),
            chain.contract("Market", self.market),
            None if self.token == NATIVE else chain.contract("ERC20", self.token, TOKEN_ABI),
        )


@dataclass(frozen=True)
class Contracts:
    """The contracts as web3 objects; no token where the market takes the chain's own currency."""

    referee: Contract
    game: Contract
    market: Contract
    token: Contract | None


def deploy(
    chain: Chain,
    account: Account,
    *,
    verifier_stake: int = DEFAULT_VERIFIER_STAKE,
    min_window: int = DEFAULT_MIN_WINDOW,
    token: str = NATIVE,
) -> Deployment:
    """Deploys referee, game and market, whose code is three contracts.

    `verifier_stake` is locked for each slot, in the smallest unit of the token. No window or clock
    of a task is shorter than `min_window` seconds: all who take part must be able to act in it.
    """
    block = chain.block
    gas: dict[str, int] = {}

    def put(name: str, *args: Any) -> str:
        contract, receipt = chain.deploy(account, name, *args)
        gas[name] = receipt.gas
        return str(contract.address)

    referee = put("Referee")
    game = put("DisputeGame", referee)
    terms = (game, token, verifier_stake)
    codes = (put("Remedies", *terms), put("Registry", *terms))
    market = put("Market", *terms, *codes, min_window)
    return Deployment(chain.chain_id, referee, game, market, block, token, gas)
