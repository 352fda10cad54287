# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy script puts the whole protocol on a chain. Run with `brownie test`."""

from __future__ import annotations

from typing import Any

import pytest
from brownie.exceptions import VirtualMachineError

from scripts import deploy as script


@pytest.fixture(scope="module")
def project() -> Any:
    from brownie import project as projects

    return projects.get_loaded_projects()[0]


def test_every_contract_of_the_table_is_deployed_where_the_others_expect_it(
    project: Any, accounts: Any, web3: Any
) -> None:
    deployer = accounts[0]
    addresses = script.deploy(project, deployer)
    assert {"Referee", "DisputeGame", "Market"} <= set(addresses)
    assert len(set(addresses.values())) == len(addresses)
    for name, address in addresses.items():
        assert len(web3.eth.get_code(address)) > 100, f"no code of {name}"


def test_deploying_again_gives_fresh_addresses(project: Any, accounts: Any) -> None:
    deployer = accounts[1]
    first = script.deploy(project, deployer)
    assert set(first.values()).isdisjoint(script.deploy(project, deployer).values())


def test_a_market_of_a_token_takes_and_pays_that_token_only(project: Any, accounts: Any) -> None:
    deployer, holder = accounts[5], accounts[6]
    token = deployer.deploy(project.PlainToken, silent=True)
    addresses = script.deploy(project, deployer, script.deployment(str(token), 10**6))
    market = project.Market.at(addresses["Market"])
    assert market.TOKEN() == token
    assert market.VERIFIER_STAKE() == 10**6
    token.mint(holder, 1000, {"from": holder, "silent": True})
    token.approve(market, 1000, {"from": holder, "silent": True})
    market.depositToken(700, {"from": holder, "silent": True})
    assert (market.balanceOf(holder), token.balanceOf(holder)) == (700, 300)
    with pytest.raises(VirtualMachineError):
        market.deposit({"from": holder, "value": 1, "silent": True})
    market.withdraw({"from": holder, "silent": True})
    assert (market.balanceOf(holder), token.balanceOf(holder)) == (0, 1000)


def test_a_transaction_in_between_stops_the_deployment(project: Any, accounts: Any) -> None:
    hasty_deployer, other = accounts[2], accounts[3]

    class Interrupted:
        """An account that sends something else just before the deployment."""

        nonce = hasty_deployer.nonce

        def __str__(self) -> str:
            return str(hasty_deployer)

        def transfer(self, **transaction: Any) -> Any:
            hasty_deployer.transfer(other, 1)
            return hasty_deployer.transfer(**transaction)

    with pytest.raises(script.DeploymentError, match="not at the expected"):
        script.deploy(project, Interrupted(), [script.Step("Referee")])


def test_arguments_that_do_not_fit_the_constructor_are_named(project: Any, accounts: Any) -> None:
    with pytest.raises(script.DeploymentError, match="the constructor of Referee takes"):
        script.deploy(project, accounts[4], [script.Step("Referee", {"nonsense": 1})])
