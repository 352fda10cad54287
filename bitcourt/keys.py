# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts for the command line: Ethereum keystore files, or a raw key from the environment."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

from eth_account import Account as EthAccount
from eth_utils.crypto import keccak

from protocol.chain.client import Account, new_account
from protocol.errors import UsageError

KEY_VARIABLE = "BITCOURT_KEY"
PASSWORD_VARIABLE = "BITCOURT_PASSWORD"
DEVELOPMENT_ACCOUNTS = 10
_GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1 (SEC 2, section 2.4.1): private keys are below it."""


def development_account(index: int) -> Account:
    """Account `index` of every chain that `bitcourt chain` serves. Its key is public."""
    return new_account(bytes(keccak(text=f"bitcourt development account {index}")))


def load_account(keystore: Path | None, development: int | None = None) -> Account:
    """The account of a keystore file, a development account, or the key in BITCOURT_KEY.

    The keystore's password comes from BITCOURT_PASSWORD or is asked for.
    """
    if development is not None:
        if not 0 <= development < DEVELOPMENT_ACCOUNTS:
            raise UsageError(f"there are {DEVELOPMENT_ACCOUNTS} development accounts, from 0 on")
        return development_account(development)
    if keystore is not None:
        return _open_keystore(keystore)
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise UsageError(
            f"no account: give --keystore FILE or --dev INDEX, or set {KEY_VARIABLE} to a "
            "private key"
        )
    try:
        private_key = bytes.fromhex(key.removeprefix("0x"))
        if len(private_key) != 32 or not 0 < int.from_bytes(private_key) < _GROUP_ORDER:
            raise ValueError
        return new_account(private_key)
    except ValueError:
        raise UsageError(f"{KEY_VARIABLE} does not hold a private key of 32 bytes in hex") from None


def create_keystore(path: Path) -> Account:
    """Makes a new account and writes it, encrypted, to a file that must not exist."""
    account = new_account()
    blob = EthAccount.encrypt(account.key, _password(f"Password for {path}: "))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(blob, file)
    except FileExistsError:
        raise UsageError(f"{path} exists already: no keystore is ever overwritten") from None
    return account


def _open_keystore(path: Path) -> Account:
    try:
        blob = json.loads(path.read_text())
        return new_account(bytes(EthAccount.decrypt(blob, _password(f"Password of {path}: "))))
    except OSError as error:
        raise UsageError(f"cannot read the keystore {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not an Ethereum keystore file") from None
    except ValueError as error:
        raise UsageError(f"cannot open the keystore {path}: {error}") from None


def _password(prompt: str) -> str:
    found = os.environ.get(PASSWORD_VARIABLE)
    return found if found is not None else getpass.getpass(prompt)
