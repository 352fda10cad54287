# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain client: decoded errors, and a ChainError that names what went wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import eth_abi
import pytest
import requests
from eth_utils.crypto import keccak

from bitcourt.rpc_server import MAX_REQUEST_BYTES, RpcServer
from protocol.chain import Chain, Deployment, deploy, embedded_chain
from protocol.chain.client import Account, new_account
from protocol.chain.embedded import Embedded
from protocol.chain.errors import decode_revert
from protocol.errors import ChainError, InsufficientFunds, TransactionReverted, UsageError
from protocol.market import Market

ETHER = 10**18


@pytest.fixture(scope="module")
def embedded() -> Embedded:
    return embedded_chain()


@pytest.fixture(scope="module")
def deployment(embedded: Embedded) -> Deployment:
    return deploy(embedded.chain, embedded.faucet)


@pytest.fixture(scope="module")
def account(embedded: Embedded) -> Account:
    made = new_account()
    embedded.chain.transfer(embedded.faucet, made.address, 100 * ETHER)
    return made


@pytest.fixture(scope="module")
def market(embedded: Embedded, deployment: Deployment, account: Account) -> Market:
    return Market(embedded.chain, deployment, account)


@pytest.fixture(scope="module")
def server(embedded: Embedded) -> Iterator[RpcServer]:
    served = RpcServer(embedded, 0, block_time=3600)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    yield served
    served.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


def error_data(signature: str, *values: Any) -> bytes:
    types = signature[signature.index("(") + 1 : -1]
    split = [kind for kind in types.split(",") if kind]
    return keccak(text=signature)[:4] + eth_abi.encode(split, values)


# Revert data.


def test_custom_errors_are_decoded_with_names_and_arguments() -> None:
    data = error_data("WrongLogSize(uint256,uint256,uint256,uint256)", 7, 3, 1, 9)
    for given in (data, "0x" + data.hex()):
        name, arguments, text = decode_revert(given, None)
        assert (name, arguments) == ("WrongLogSize", (7, 3, 1, 9))
        assert text == "reverted with WrongLogSize(id=7, size=3, least=1, most=9)"


def test_labels_are_shown_as_text_and_hashes_as_hexadecimal() -> None:
    spec = error_data("InvalidSpec(bytes32)", b"windows".ljust(32, b"\0"))
    assert decode_revert(spec, None)[2] == "reverted with InvalidSpec(field='windows')"
    other = error_data("InvalidSpec(bytes32)", b"\xff" * 32)
    assert decode_revert(other, None)[2] == f"reverted with InvalidSpec(field=0x{'ff' * 32})"


def test_errors_with_a_struct_are_decoded() -> None:
    context = f"({'bytes32,' * 6}uint64,{','.join(['uint32'] * 5)})"
    values = (*[bytes(32)] * 6, 0, 1, 2, 3, 4, 5)
    data = keccak(text=f"InvalidContext({context})")[:4] + eth_abi.encode([context], [values])
    name, arguments, _ = decode_revert(data, None)
    assert (name, arguments) == ("InvalidContext", (values,))


def test_panics_and_plain_reasons_are_told() -> None:
    panic = error_data("Panic(uint256)", 0x11)
    assert decode_revert(panic, None) == ("Panic", (0x11,), "reverted with panic code 0x11")
    plain = error_data("Error(string)", "no")
    assert decode_revert(plain, None) == ("Error", ("no",), "reverted: no")


@pytest.mark.parametrize("data", [None, b"", b"abc", "0x", "0xzz", "no hexadecimal", 7])
def test_a_revert_without_data_tells_the_nodes_message(data: Any) -> None:
    assert decode_revert(data, "out of gas") == ("", (), "out of gas")
    assert decode_revert(data, None) == ("", (), "reverted without a reason")


@pytest.mark.parametrize(
    "data",
    [
        b"\xde\xad\xbe\xef",
        error_data("WrongLogSize(uint256,uint256,uint256,uint256)", 7, 3, 1, 9)[:-1],
        keccak(text="Error(string)")[:4] + b"\xff" * 64,
        error_data("Error(bytes)", b"\xff\xfe"),
        keccak(text="Error(string)")[:4] + eth_abi.encode(["bytes"], [b"\xff\xfe"]),
    ],
)
def test_revert_data_of_nobodys_making_is_shown_and_raises_nothing(data: bytes) -> None:
    name, arguments, text = decode_revert(data, None)
    assert (name, arguments) == ("", ())
    assert text == f"reverted with unknown error data 0x{data.hex()}"


# Transactions.


def test_a_transaction_gives_its_decoded_events_and_gas(market: Market) -> None:
    receipt = market.send("deposit", value=5)
    assert receipt.event("Deposited") == {"account": market.address, "amount": 5}
    assert receipt.function == "deposit"
    assert 21_000 < receipt.gas < 60_000
    assert receipt.block == market.chain.block
    with pytest.raises(ChainError, match=r"deposit emitted no Bid event \(transaction 0x"):
        receipt.event("Bid")


def test_a_refused_transaction_names_the_contracts_error(market: Market) -> None:
    with pytest.raises(
        TransactionReverted, match=r"registerVerifier: .*InvalidSlots\(slots=0\)"
    ) as e:
        market.send("registerVerifier", 0)
    assert (e.value.error, e.value.arguments) == ("InvalidSlots", (0,))


def test_a_refused_call_names_the_contracts_error(market: Market) -> None:
    with pytest.raises(TransactionReverted, match=r"calling onVerdict: .*NotGame") as caught:
        market.view("onVerdict", 1, True)
    assert caught.value.error == "NotGame"


def test_an_account_that_cannot_pay_is_told_what_it_needs(
    embedded: Embedded, deployment: Deployment
) -> None:
    poor = Market(embedded.chain, deployment, new_account())
    with pytest.raises(InsufficientFunds, match=rf"{poor.address} needs \d+ wei .* and has 0"):
        poor.send("deposit", value=1)
    with pytest.raises(InsufficientFunds):
        embedded.chain.transfer(poor.account, embedded.faucet.address, 1)


def test_events_are_read_from_a_block_on_and_only_when_confirmed(market: Market) -> None:
    contract, chain = market.contracts.market, market.chain
    first = market.send("deposit", value=1).block
    second = market.send("deposit", value=2).block
    careful = Chain(chain.w3, confirmations=1)
    amounts = [v["amount"] for _, name, v, _ in chain.logs(contract, first) if name == "Deposited"]
    assert amounts == [1, 2]
    assert [block for block, *_ in chain.logs(contract, second)] == [second]
    assert [block for block, *_ in careful.logs(contract, first)] == [first]
    assert chain.logs(contract, second + 5) == []
    market.send("deposit", value=3)
    assert [block for block, *_ in careful.logs(contract, first)] == [first, second]


def test_time_travels_on_the_embedded_chain(market: Market) -> None:
    now, block = market.chain.now, market.chain.block
    market.chain.wait(1000)
    assert market.chain.now >= now + 1000
    assert market.chain.block > block


# Wrong chains and places.


def test_a_deployment_on_another_chain_is_refused(
    embedded: Embedded, deployment: Deployment
) -> None:
    foreign = replace(deployment, chain_id=deployment.chain_id + 1)
    with pytest.raises(ChainError, match=r"deployment is on chain \d+, but the RPC endpoint is"):
        foreign.contracts(embedded.chain)


def test_an_address_without_code_is_refused(embedded: Embedded, deployment: Deployment) -> None:
    nowhere = replace(deployment, market="0x" + "12" * 20)
    with pytest.raises(ChainError, match=r"no contract lies at 0x1212.* deploy first"):
        nowhere.contracts(embedded.chain)


def test_a_deployment_file_comes_back_as_it_was(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "deployment.json"
    deployment.save(file)
    assert Deployment.load(file) == deployment


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]", "7", '{"chain_id": 1}'])
def test_a_damaged_deployment_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "deployment.json"
    with pytest.raises(UsageError, match=r"no deployment file at .*: run `bitcourt deploy` first"):
        Deployment.load(file)
    file.write_text(text)
    with pytest.raises(UsageError, match="is not a deployment file"):
        Deployment.load(file)


@pytest.mark.parametrize("url", ["", "localhost:8545", "ftp://x", "geth.ipc"])
def test_an_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ChainError, match=r"is not an http\(s\) RPC URL"):
        Chain.connect(url)


def test_an_endpoint_where_nobody_listens_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ChainError, match="the RPC endpoint does not answer"):
            Chain.connect(url)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"broken"),
        (404, b""),
        (200, b"<html>welcome</html>"),
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"jsonrpc": "2.0", "id": 0, "result": null}'),
        (200, b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "busy"}}'),
    ],
)
def test_an_endpoint_that_is_no_chain_is_a_chain_error(status: int, body: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            with pytest.raises(ChainError, match="asking the chain for its id"):
                Chain.connect(f"http://127.0.0.1:{http.server_address[1]}")
        finally:
            http.shutdown()


# The embedded chain over HTTP.


def test_a_client_over_http_sees_and_uses_the_same_chain(
    server: RpcServer, market: Market, deployment: Deployment
) -> None:
    chain = Chain.connect_test(server.url)
    remote = Market(chain, deployment, market.account)
    assert chain.chain_id == market.chain.chain_id
    free = market.free_balance()
    receipt = remote.send("deposit", value=11)
    assert receipt.event("Deposited")["amount"] == 11
    assert market.free_balance() == remote.free_balance() == free + 11
    events = chain.logs(remote.contracts.market, receipt.block)
    assert events == market.chain.logs(market.contracts.market, receipt.block)
    assert chain.balance(market.address) == market.chain.balance(market.address)


def test_errors_over_http_are_decoded_like_those_of_the_embedded_chain(
    server: RpcServer, market: Market, deployment: Deployment
) -> None:
    remote = Market(Chain.connect(server.url), deployment, market.account)
    with pytest.raises(TransactionReverted) as caught:
        remote.send("registerVerifier", 65)
    assert (caught.value.error, caught.value.arguments) == ("InvalidSlots", (65,))
    with pytest.raises(TransactionReverted) as caught:
        remote.view("onVerdict", 1, True)
    assert caught.value.error == "NotGame"
    poor = Market(remote.chain, deployment, new_account())
    with pytest.raises(InsufficientFunds):
        poor.send("deposit", value=1)


def test_connecting_to_the_wrong_chain_over_http_is_refused(server: RpcServer) -> None:
    known = Chain.connect(server.url).chain_id
    assert Chain.connect(server.url, chain_id=known).chain_id == known
    with pytest.raises(ChainError, match=rf"is chain {known}, not 1:"):
        Chain.connect(server.url, chain_id=1)


def test_time_travels_over_http(server: RpcServer) -> None:
    chain = Chain.connect_test(server.url)
    now = chain.now
    chain.wait(5000)
    assert chain.now >= now + 5000


def ask(server: RpcServer, body: bytes | str) -> Any:
    response = requests.post(server.url, data=body, timeout=10)
    assert response.status_code == 200
    return response.json()


def test_batches_are_answered_in_order(server: RpcServer) -> None:
    one = '{"jsonrpc": "2.0", "id": %d, "method": "%s", "params": []}'
    methods = ["eth_chainId", "eth_blockNumber", "no_such_method"]
    answers = ask(server, "[" + ",".join(one % (i, m) for i, m in enumerate(methods)) + "]")
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert ["result" in answer for answer in answers] == [True, True, False]


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        b"\xff\xfe",
        "7",
        "{}",
        '{"method": 7}',
        '{"id": 1, "method": "no_such_method"}',
        '{"id": 1, "method": "eth_getBalance", "params": []}',
        '{"id": 1, "method": "eth_getBalance", "params": {"a": 1}}',
        '{"id": 1, "method": "eth_getBlockByNumber", "params": ["x", false]}',
        '{"id": 1, "method": "eth_sendRawTransaction", "params": ["0x00"]}',
        '{"id": 1, "method": "eth_sendRawTransaction", "params": [7]}',
        '{"id": 1, "method": "evm_increaseTime", "params": []}',
        '{"id": 1, "method": "evm_increaseTime", "params": ["soon"]}',
        '{"id": 1, "method": "evm_increaseTime", "params": [-5]}',
        '{"id": 1, "method": "evm_increaseTime", "params": [null]}',
    ],
)
def test_a_request_that_makes_no_sense_gets_a_json_rpc_error(
    server: RpcServer, body: bytes | str
) -> None:
    answer = ask(server, body)
    assert answer["jsonrpc"] == "2.0"
    assert isinstance(answer["error"]["code"], int)
    assert answer["error"]["message"]
    assert ask(server, '{"id": 2, "method": "eth_chainId"}')["id"] == 2  # still there


@pytest.mark.parametrize("length", ["0", "-1", "many", str(MAX_REQUEST_BYTES + 1)])
def test_a_request_of_an_absurd_length_is_refused_unread(server: RpcServer, length: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(1024).split(b"\r\n")[0]


def test_a_port_that_is_taken_is_named(embedded: Embedded, server: RpcServer) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
        RpcServer(embedded, port)


def test_two_accounts_may_send_at_the_same_time(
    server: RpcServer, embedded: Embedded, deployment: Deployment
) -> None:
    accounts = [new_account() for _ in range(2)]
    for one in accounts:
        embedded.chain.transfer(embedded.faucet, one.address, ETHER)
    failures: list[BaseException] = []

    def work(one: Account) -> None:
        try:
            market = Market(Chain.connect(server.url), deployment, one)
            for _ in range(3):
                market.send("deposit", value=7)
        except BaseException as error:  # shown by the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    market = Market(embedded.chain, deployment, accounts[0])
    assert [market.free_balance(one.address) for one in accounts] == [21, 21]
