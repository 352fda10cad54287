# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a user gets wrong is answered by one sentence and exit code 1, never by a traceback."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest

from bitcourt import cli
from bitcourt.keys import KEY_VARIABLE, PASSWORD_VARIABLE, development_account, load_account
from bitcourt.rpc_server import RpcServer
from protocol.chain.client import Chain, new_account
from protocol.chain.deployment import Deployment, deploy
from protocol.chain.embedded import embedded_chain
from protocol.market import Market
from protocol.task import TaskSpec

COMMANDS = ("demo", "simulate", "chain", "deploy", "submit", "solver", "verifier", "status",
            "fetch", "withdraw", "cancel", "ask", "whistleblow", "account", "account new", "trace",
            "inspect", "train", "recommend")  # fmt: skip
DEAD_RPC = "http://127.0.0.1:9"
JOB = """
import torch
from bitcourt import Job

def job():
    module = torch.nn.Linear(2, 1)
    return Job(module, torch.nn.functional.mse_loss, torch.optim.SGD(module.parameters(), lr=0.1),
               (torch.ones(4, 2), torch.ones(4, 1)), batch_size=2, steps=2, segment_steps=1)
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def bitcourt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> object:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["bitcourt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


class Node(NamedTuple):
    url: str
    deployment: Deployment


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    embedded = embedded_chain()
    embedded.chain.transfer(embedded.faucet, development_account(0).address, 10**20)
    deployment = deploy(embedded.chain, embedded.faucet)
    server = RpcServer(embedded, 0, block_time=3600)
    threading.Thread(target=server.serve, daemon=True).start()
    yield Node(server.url, deployment)
    server.close()


@pytest.fixture
def deployed(node: Node, tmp_path: Path, bitcourt: object) -> Node:
    node.deployment.save(tmp_path / "bitcourt.json")
    return node


def one_sentence(result: Result, *words: str) -> None:
    assert result.code == 1
    assert result.out == ""
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("bitcourt: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(bitcourt, command: str) -> None:
    result = bitcourt(*command.split(), "--help")
    assert result.code == 0
    assert "Usage:" in result.out
    assert "--help" in result.out


def test_an_unreachable_endpoint(bitcourt) -> None:
    one_sentence(bitcourt("deploy", "--dev", 0, "--rpc", DEAD_RPC), "does not answer")


def test_an_endpoint_that_is_no_url(bitcourt) -> None:
    one_sentence(bitcourt("deploy", "--dev", 0, "--rpc", "ftp://x"), "not an http(s) RPC URL")


def test_an_endpoint_that_speaks_something_else(bitcourt, deployed: Node) -> None:
    url = f"{deployed.url}/../%"
    result = bitcourt("status", 1, "--rpc", url.replace("127.0.0.1", "127.0.0.1:1@127.0.0.1"))
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1


def test_a_missing_deployment_file(bitcourt) -> None:
    one_sentence(bitcourt("status", 1), "no deployment file", "bitcourt deploy")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"chain_id": 1}',
        "\xff",
        '{"chain_id": 131277322940537, "referee": 5, "game": "", "market": "x", "block": 0}',
    ],
)
def test_a_broken_deployment_file(bitcourt, node: Node, tmp_path: Path, text: str) -> None:
    (tmp_path / "bitcourt.json").write_text(text, encoding="latin-1")
    one_sentence(bitcourt("status", 1, "--rpc", node.url), "deployment file")


def test_the_deployment_file_of_another_chain(bitcourt, node: Node, tmp_path: Path) -> None:
    Deployment(5, *["0x" + "11" * 20] * 3, block=0).save(tmp_path / "bitcourt.json")
    one_sentence(bitcourt("status", 1, "--rpc", node.url), "chain 5", "deployment file")


def test_a_chain_that_lost_its_contracts(bitcourt, node: Node, tmp_path: Path) -> None:
    empty = ["0x" + "11" * 20] * 3
    Deployment(node.deployment.chain_id, *empty, block=0).save(tmp_path / "bitcourt.json")
    one_sentence(bitcourt("status", 1, "--rpc", node.url), "no contract", "deploy first")


def test_no_account(bitcourt, deployed: Node) -> None:
    one_sentence(bitcourt("withdraw", "--rpc", deployed.url), "--keystore", "--dev", KEY_VARIABLE)


@pytest.mark.parametrize("key", ["12", "zz" * 32, "00" * 32, "ff" * 32])
def test_a_key_that_is_none(bitcourt, deployed: Node, monkeypatch, key: str) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    one_sentence(bitcourt("withdraw", "--rpc", deployed.url), KEY_VARIABLE, "private key")


def test_a_development_account_that_does_not_exist(bitcourt, deployed: Node) -> None:
    one_sentence(bitcourt("withdraw", "--dev", 10, "--rpc", deployed.url), "10 development")


def test_keystores(bitcourt, deployed: Node, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "a password")
    path = tmp_path / "keys" / "new.json"
    made = bitcourt("account", "new", path)
    assert made.code == 0
    assert load_account(path).address == made.out.strip()
    assert path.stat().st_mode & 0o077 == 0
    one_sentence(bitcourt("account", "new", path), "exists already")

    withdraw = ("withdraw", "--rpc", deployed.url, "--keystore")
    one_sentence(bitcourt(*withdraw, tmp_path / "none.json"), "cannot read the keystore")
    one_sentence(bitcourt(*withdraw, tmp_path), "cannot read the keystore")
    one_sentence(bitcourt(*withdraw, path), "nothing to withdraw")
    monkeypatch.setenv(PASSWORD_VARIABLE, "another")
    one_sentence(bitcourt(*withdraw, path), "cannot open the keystore")
    for broken in ("", "no json", "[]", "{}", '{"version": 3, "crypto": {}}', '"text"'):
        path.write_text(broken)
        one_sentence(bitcourt(*withdraw, path), str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not a Python file"),
        ("x = 1", "must define job()"),
        ("def job(): return 5", "returned int"),
        ("def job(:", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("def job(): raise ValueError('no data here')", "no data here"),
        ("def job(): return open('/nonexistent/file')", "/nonexistent/file"),
        ("import torch\ndef job(): return torch.ones(2) @ torch.ones(3)", "size"),
        (JOB.replace("torch.nn.Linear(2, 1)", "Odd()").replace("def job", """
class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2, 2))
    def forward(self, x):
        return torch.linalg.inv(self.w) @ x.T

def job"""), "inv"),
        (JOB.replace("(4, 1)", "(3, 1)"), "same number of examples"),
        (JOB.replace("Linear(2, 1)", "Linear(3, 1)"), "same reduction dim"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_used(bitcourt, deployed: Node, tmp_path, text, words: str) -> None:
    path = tmp_path / "my_job.py"
    if text is not None:
        path.write_text(text)
    result = bitcourt("submit", path, "--store", tmp_path / "s", "--dev", 0, "--rpc", deployed.url)
    one_sentence(result, words)
    assert not (tmp_path / "s").exists()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "good_job.py"
    path.write_text(JOB)
    return path


def test_a_store_that_cannot_be_used(bitcourt, deployed: Node, job: Path, tmp_path: Path) -> None:
    submit = ("submit", job, "--dev", 0, "--rpc", deployed.url, "--store")
    (tmp_path / "file").write_text("in the way")
    one_sentence(bitcourt(*submit, tmp_path / "file"), "cannot write")
    one_sentence(bitcourt(*submit, "nosuch://bucket"), "nosuch://bucket", "as a store")


def test_insufficient_funds(bitcourt, deployed: Node, job: Path, monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, new_account().key.hex())
    result = bitcourt("submit", job, "--store", "store", "--rpc", deployed.url)
    one_sentence(result, "needs", "wei")


def test_terms_that_the_market_refuses(bitcourt, deployed: Node, job: Path) -> None:
    result = bitcourt("submit", job, "--store", "store", "--dev", 0, "--rpc", deployed.url,
                      "--samples", 9)  # fmt: skip
    one_sentence(result, "InvalidSpec", "samples")


def test_an_ask_is_set_and_entered_and_a_task_cancelled(
    bitcourt, deployed: Node, job: Path, monkeypatch
) -> None:
    rpc = ("--rpc", deployed.url)
    asked = bitcourt("ask", 0.5, "--capacity", 2, "--memory-mib", 100, "--deposit", 2, "--dev", 0,
                     *rpc)  # fmt: skip
    assert asked.code == 0
    owner = development_account(0).address
    assert owner in asked.out
    submitter = new_account()
    market = Market(Chain.connect(deployed.url), deployed.deployment, submitter)
    market.chain.transfer(development_account(0), submitter.address, 5 * 10**18)
    monkeypatch.setenv(KEY_VARIABLE, submitter.key.hex())
    terms = ("submit", job, "--store", "store", *rpc, "--json")
    first = json.loads(bitcourt(*terms, "--enter-asks").out)
    assert first["asks"] == [owner]
    assert market.state(first["task"]).solver == owner
    assert bitcourt("cancel", first["task"], *rpc).code == 0  # as long as no bid can be revealed
    one_sentence(bitcourt("cancel", first["task"], *rpc), "WrongStatus")
    second = json.loads(bitcourt(*terms, "--solver", owner, "--window-segments", 1).out)
    assert market.posted(second["task"]).spec.windows == 2
    assert bitcourt("cancel", second["task"], *rpc).code == 0
    assert market.free_balance() >= second["escrow_wei"]
    status = json.loads(bitcourt("status", second["task"], *rpc, "--json").out)
    assert status["status"] == "Expired"


def test_unknown_tasks_and_scenarios(bitcourt, deployed: Node, tmp_path: Path) -> None:
    for task in (0, 77, -1, 2**300):
        one_sentence(bitcourt("status", "--rpc", deployed.url, "--", task), f"no task {task}")
    fetched = bitcourt("fetch", 77, "--out", tmp_path / "m", "--rpc", deployed.url)
    one_sentence(fetched, "no task 77")
    one_sentence(bitcourt("simulate", "nonsense"), "no scenario 'nonsense'", "backward")


def test_a_posted_task_is_described(bitcourt, deployed: Node, job: Path, tmp_path: Path) -> None:
    posted = bitcourt(
        "submit", job, "--store", "store", "--dev", 0, "--rpc", deployed.url, "--json"
    )
    task = json.loads(posted.out)["task"]
    status = json.loads(bitcourt("status", task, "--rpc", deployed.url, "--json").out)
    assert status["status"] == "Bidding"
    assert status["submitter"] == development_account(0).address
    assert status["checkpoints"] == "0 of 3"
    assert Path(status["store"]) == tmp_path / "store"
    fetched = bitcourt("fetch", task, "--out", tmp_path / "m", "--rpc", deployed.url)
    one_sentence(fetched, "is Bidding")


def test_recommended_terms_can_be_posted_as_printed(bitcourt, deployed: Node, job: Path) -> None:
    plain, exact = bitcourt("recommend", job), bitcourt("recommend", job, "--json")
    terms = json.loads(exact.out)
    assert (plain.code, exact.code) == (0, 0)
    assert all(reason in plain.out for reason in terms["why"].values())
    _, *command = shlex.split(plain.out.splitlines()[-1])
    posted = bitcourt(
        *command, "--store", "store", "--dev", 0, "--rpc", deployed.url, "--json"
    )  # fmt: skip
    chain = Chain.connect(deployed.url)
    task = json.loads(posted.out)["task"]
    found = Market(chain, deployed.deployment, new_account()).posted(task)
    assert found.spec.budget == terms["budget_wei"]
    assert (found.spec.samples, found.spec.committee) == (terms["samples"], terms["committee"])
    for name in ("solver_stake", "verifier_fee", "bond"):
        above = getattr(found.spec, name) - terms[f"{name}_wei"]
        assert 0 <= above < 10**9, name


@pytest.mark.parametrize("option", ["window_segments", "second_audit"])
def test_terms_that_the_market_does_not_know_come_without_a_command(
    bitcourt, job: Path, option: str
) -> None:
    last = bitcourt("recommend", job, f"--{option.replace('_', '-')}", 1).out.splitlines()[-1]
    if option in {field.name for field in fields(TaskSpec)}:
        assert f"--{option.replace('_', '-')} 1" in last
    else:
        assert last.startswith("No command posts these terms")
        assert option.replace("_", " ") in last


def test_recommendations_for_a_traced_program(bitcourt, job: Path, tmp_path: Path) -> None:
    bitcourt("trace", job, "--out", tmp_path / "program.bin")
    traced = ("recommend", tmp_path / "program.bin", "--window-segments", 1)
    one_sentence(bitcourt(*traced), "--steps", "--segment-steps")
    schedule = ("--steps", 2, "--segment-steps", 1)
    result = bitcourt(*traced, *schedule)
    assert result.code == 0
    assert "window segments: given" in result.out
    of_job = ("recommend", job, "--window-segments", 1)
    assert bitcourt(*traced, *schedule, "--json").out == bitcourt(*of_job, "--json").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--colluding", 100), "nobody honest ever looks"),
        (("--gain", "inf"), "inf is no amount"),
        (("--budget", 0.001), "nobody honest bids"),
        (("--samples", 3), "3 drawn segments: the market admits 1 to 2"),
        (("--committee", 5), "5 seats"),
        (("--steps", 1, "--segment-steps", 2), "cannot be cut"),
    ],
)
def test_a_recommendation_that_cannot_be_given(bitcourt, job: Path, options, words: str) -> None:
    one_sentence(bitcourt("recommend", job, *options), words)


def test_scenarios_are_listed(bitcourt) -> None:
    listed = json.loads(bitcourt("simulate", "list", "--json").out)
    assert {"honest", "lazy", "lanes"} <= set(listed)


def test_a_port_that_is_taken(bitcourt, deployed: Node) -> None:
    port = deployed.url.rpartition(":")[2]
    result = bitcourt("chain", "--port", port)
    assert result.code == 1
    assert "cannot listen" in result.err
