# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy script puts the whole protocol on a chain. Run with `brownie test`."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_a_transaction_in_between_stops_the_deployment(project: Any, accounts: Any) -> None:
    deployer, other = accounts[2], accounts[3]

    class Hasty:
        """Deploys after the account has sent something else."""

        abi: list[dict[str, Any]] = []  # noqa: RUF012

        def deploy(self, transaction: dict[str, Any]) -> Any:
            deployer.transfer(other, 1)
            return project["Referee"].deploy(transaction)

    with pytest.raises(script.DeploymentError, match="not at the expected"):
        script.deploy({"Referee": Hasty()}, deployer, [script.Step("Referee")])
