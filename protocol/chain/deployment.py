# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the contracts lie: deployed once, then read from a small JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eth_utils.address import is_address
from web3.contract import Contract

from protocol.chain.client import Account, Chain
from protocol.errors import ChainError, UsageError

DEFAULT_VERIFIER_STAKE = 10**18


@dataclass(frozen=True)
class Deployment:
    """Addresses on one chain. `block` is where its events begin."""

    chain_id: int
    referee: str
    game: str
    market: str
    block: int
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
        for name in ("referee", "game", "market"):
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
        )


@dataclass(frozen=True)
class Contracts:
    """The three contracts as web3 objects."""

    referee: Contract
    game: Contract
    market: Contract


def deploy(
    chain: Chain, account: Account, *, verifier_stake: int = DEFAULT_VERIFIER_STAKE
) -> Deployment:
    """Deploys referee, game and market. `verifier_stake` is in wei, locked for each slot."""
    block = chain.block
    referee, first = chain.deploy(account, "Referee")
    game, second = chain.deploy(account, "DisputeGame", referee.address)
    market, third = chain.deploy(account, "Market", game.address, verifier_stake)
    return Deployment(
        chain.chain_id,
        str(referee.address),
        str(game.address),
        str(market.address),
        block,
        {"Referee": first.gas, "DisputeGame": second.gas, "Market": third.gas},
    )
