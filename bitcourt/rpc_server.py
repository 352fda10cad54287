# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves the embedded chain as JSON-RPC over HTTP on loopback, for separate processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from protocol.chain.embedded import Embedded
from protocol.errors import UsageError

MAX_REQUEST_BYTES = 1 << 22
_INVALID_REQUEST = -32600
_INTERNAL_ERROR = -32603


class RpcServer:
    """One embedded chain behind HTTP. `block_time` seconds pass between two empty blocks."""

    def __init__(self, embedded: Embedded, port: int, block_time: float = 1.0) -> None:
        self._embedded = embedded
        self._lock = threading.Lock()
        self._block_time = block_time
        self._stop = threading.Event()
        handle = self.handle

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stated = self.headers.get("Content-Length") or ""
                length = int(stated) if stated.isdecimal() and len(stated) < 10 else 0
                if not 0 < length <= MAX_REQUEST_BYTES:
                    self.close_connection = True  # the body is not read
                    self.send_error(413)
                    return
                body = json.dumps(handle(self.rfile.read(length))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet: every request would be a line."""

        try:
            self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(f"cannot listen on 127.0.0.1:{port}: {error}") from None
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        """URL that clients use."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def serve(self) -> None:
        """Serves until `close` is called from another thread or a KeyboardInterrupt."""
        threading.Thread(target=self._mine, daemon=True).start()
        self._http.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stops serving and mining."""
        self._stop.set()
        self._http.shutdown()
        self._http.server_close()

    def _mine(self) -> None:
        while not self._stop.wait(self._block_time):
            with self._lock:
                self._embedded.tester.mine_block()

    def handle(self, body: bytes) -> Any:
        """Response to one JSON-RPC request, or to a batch of them."""
        try:
            request = json.loads(body)
        except ValueError:
            return _error(None, _INVALID_REQUEST, "the request is not JSON")
        if isinstance(request, list):
            return [self._one(entry) for entry in request]
        return self._one(request)

    def _one(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, _INVALID_REQUEST, "the request has no method")
        identifier = request.get("id")
        method, params = request["method"], request.get("params") or []
        try:
            with self._lock:
                answer = self._answer(method, params)
            if "result" in answer:
                answer = {"result": _jsonable(answer["result"])}
        except Exception as error:  # whatever a request does to the chain's library, it is answered
            return _error(identifier, _INTERNAL_ERROR, f"{method}: {error or type(error).__name__}")
        return {"jsonrpc": "2.0", "id": identifier, **answer}

    def _answer(self, method: str, params: Any) -> dict[str, Any]:
        if method == "evm_increaseTime" and params:
            self._embedded.chain.wait(_number(params[0]))
            return {"result": params[0]}
        if method == "evm_mine":
            self._embedded.tester.mine_block()
            return {"result": "0x0"}
        return self._embedded.request(method, params)


def _number(value: Any) -> int:
    return int(value, 16) if isinstance(value, str) else int(value)


def _error(identifier: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": {"code": code, "message": message}}


def _jsonable(value: Any) -> Any:
    """Values as Ethereum's JSON-RPC writes them: quantities and bytes in hexadecimal."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, bytes | bytearray):
        return "0x" + bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_jsonable(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} has no place in JSON-RPC")
