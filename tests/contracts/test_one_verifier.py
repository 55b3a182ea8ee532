"""One Ed25519 verifier: nothing else reaches for such a function, but for one that may only agree with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("statelog", "projections", "fabric", "control_api")
HOMES = {
    "statelog/signing.py": {"crypto_sign_open"},
    "statelog/io/quickverify.py": {"verify_with_public_key"},  # which may only say yes: docs/adr/0020
}
VERIFIERS = {
    "verify_with_public_key",
    "crypto_sign_open",
    "crypto_sign_ed25519ph_final_verify",
    "VerifyKey",
    "Ed25519PublicKey",
}


def reached(tree: ast.AST) -> Iterator[str]:
    """The verifying names that a module imports or uses, and `verify` called on a key of `cryptography`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (one.name for one in node.names if one.name in VERIFIERS)
        elif isinstance(node, ast.Attribute) and node.attr in VERIFIERS:
            yield node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "verify"
            and isinstance(node.func.value, ast.Call)
        ):
            yield f"{ast.unparse(node.func)}()"


def test_nothing_else_verifies() -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if (names := set(reached(ast.parse(path.read_text()))))
    }
    assert found == HOMES


@pytest.mark.parametrize(
    "text",
    [
        "from nacl.signing import VerifyKey",
        "import nacl.bindings\nnacl.bindings.crypto_sign_open(b'')",
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey",
        "key.public_key().verify(signature, message)",
    ],
)
def test_the_check_sees(text: str) -> None:
    assert list(reached(ast.parse(text)))


def test_the_check_lets_signing_pass() -> None:
    text = "from statelog.signing import verify\nverify(key, signature, message)\nkey.sign(b'')"
    assert not list(reached(ast.parse(text)))
