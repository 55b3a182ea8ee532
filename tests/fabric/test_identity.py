"""Node identity: golden certificate, pins, node ids and addresses."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fabric.identity import (
    CERTIFICATE_BYTES,
    AddressError,
    IdentityError,
    NodeIdentity,
    certificate_der,
    certificate_sha256,
    check_listener,
    format_quic_address,
    node_id_of,
    parse_quic_address,
    public_key_of_certificate,
)

SEED = bytes(range(32))
# Made once with OpenSSL's encoder through the `cryptography` package; the second test makes it again.
GOLDEN_DER = bytes.fromhex(
    "3081cb307fa003020102020101300506032b6570300f310d300b06035504030c046e6f64653020170d3230303130313030303030305a"
    "180f32313230303130313030303030305a300f310d300b06035504030c046e6f6465302a300506032b657003210003a107bff3ce10be"
    "1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8300506032b657003410087a4b1e47b39e93650f4dde1969a3a9a216cc184"
    "402b2ed26c7a8461d03a7bccfee0d4267dab929897842075532dcb7505949da3687e0517340c9f0b4e156d03"
)


def identity(number: int = 0) -> NodeIdentity:
    return NodeIdentity.from_seed(bytes([number]) * 32)


def test_the_certificate_of_a_known_key() -> None:
    made = NodeIdentity.from_seed(SEED)
    assert made.certificate_der == GOLDEN_DER
    assert made.certificate_sha256 == hashlib.sha256(GOLDEN_DER).hexdigest()
    assert made.node_id == hashlib.sha256(made.public).hexdigest()
    assert len(GOLDEN_DER) == CERTIFICATE_BYTES


@given(st.binary(min_size=32, max_size=32))
def test_a_certificate_library_makes_the_same_bytes(seed: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .sign(private, None)
        .public_bytes(Encoding.DER)
    )
    ours = NodeIdentity.from_seed(seed)
    assert ours.certificate_der == made
    assert public_key_of_certificate(made) == ours.public


def test_the_certificate_needs_the_key_only_to_sign() -> None:
    made = NodeIdentity.from_seed(SEED)
    assert certificate_der(made.public, made.sign) == GOLDEN_DER


def test_the_seed_is_never_shown() -> None:
    assert SEED.hex() not in repr(NodeIdentity.from_seed(SEED))
    assert repr(SEED) not in repr(NodeIdentity.from_seed(SEED))


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(seed: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        NodeIdentity.from_seed(seed)
    assert refused.value.code == "identity_seed"


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33)])
def test_a_public_key_of_another_length_has_no_node_id(public: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        node_id_of(public)
    assert refused.value.code == "identity_public_key"


def test_every_changed_bit_of_a_certificate_is_refused() -> None:
    assert public_key_of_certificate(GOLDEN_DER) == NodeIdentity.from_seed(SEED).public
    for position in range(len(GOLDEN_DER) * 8):
        changed = bytearray(GOLDEN_DER)
        changed[position // 8] ^= 1 << (position % 8)
        with pytest.raises(IdentityError) as refused:
            public_key_of_certificate(bytes(changed))
        assert refused.value.code == "identity_certificate"


@pytest.mark.parametrize("der", [b"", GOLDEN_DER[:-1], GOLDEN_DER + b"\x00", b"\x30" * 206])
def test_anything_else_is_no_certificate(der: bytes) -> None:
    with pytest.raises(IdentityError) as refused:
        public_key_of_certificate(der)
    assert refused.value.code == "identity_certificate"


class TestCheckListener:
    def test_pin_or_node_id_or_both(self) -> None:
        right = identity(1)
        for pin, node_id in (
            (right.certificate_sha256, right.node_id),
            (right.certificate_sha256, None),
            (None, right.node_id),
        ):
            found = check_listener(right.certificate_der, pin=pin, node_id=node_id)
            assert found == (right.public, right.node_id)

    def test_knowing_neither_is_refused(self) -> None:
        with pytest.raises(IdentityError) as refused:
            check_listener(identity(1).certificate_der, pin=None, node_id=None)
        assert refused.value.code == "identity_pin"

    def test_another_pin(self) -> None:
        right, other = identity(1), identity(2)
        with pytest.raises(IdentityError) as refused:
            check_listener(right.certificate_der, pin=other.certificate_sha256, node_id=right.node_id)
        assert refused.value.code == "identity_pin"

    def test_another_node(self) -> None:
        right, other = identity(1), identity(2)
        with pytest.raises(IdentityError) as refused:
            check_listener(right.certificate_der, pin=right.certificate_sha256, node_id=other.node_id)
        assert refused.value.code == "identity_node"

    def test_no_certificate(self) -> None:
        with pytest.raises(IdentityError) as refused:
            check_listener(None, pin=identity(1).certificate_sha256, node_id=None)
        assert refused.value.code == "identity_missing"

    def test_a_pinned_certificate_that_is_not_a_nodes(self) -> None:
        der = GOLDEN_DER[:-1] + bytes([GOLDEN_DER[-1] ^ 1])
        with pytest.raises(IdentityError) as refused:
            check_listener(der, pin=certificate_sha256(der), node_id=None)
        assert refused.value.code == "identity_certificate"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("quic://127.0.0.1:4433", "127.0.0.1", 4433),
        ("quic://[::1]:1", "::1", 1),
        ("quic://[2001:db8::5]:65535", "2001:db8::5", 65535),
        ("quic://node-7.example.net:443", "node-7.example.net", 443),
        ("quic://localhost:80", "localhost", 80),
        ("quic://1.example:80", "1.example", 80),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert parse_quic_address(text) == (host, port)
    assert format_quic_address(host, port) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quic://",
        "quic://host",
        "quic://:443",
        "quic://host:",
        "quic://host:0",
        "quic://host:65536",
        "quic://host:080",
        "quic://host:+80",
        "quic://host:8 0",
        "quic://host:٤٤",
        "QUIC://host:443",
        "https://host:443",
        "host:443",
        "quic://host:443/",
        "quic://host:443/path",
        "quic://user@host:443",
        "quic://Host:443",
        "quic://-host:443",
        "quic://host-:443",
        "quic://ho_st:443",
        "quic://host..net:443",
        "quic://host.:443",
        "quic://" + "a" * 64 + ":443",
        "quic://" + "a." * 127 + "a:443",
        "quic://127.0.0.1:443\n",
        "quic://127.1:443",
        "quic://127.0.0.01:443",
        "quic://256.0.0.1:443",
        "quic://1.2.3.4.5:443",
        "quic://0x7f000001:443",
        "quic://a.0x1:443",
        "quic://a.1:443",
        "quic://2130706433:443",
        "quic://::1:443",
        "quic://[::1:443",
        "quic://[::1]443",
        "quic://[0:0:0:0:0:0:0:1]:443",
        "quic://[::FFFF]:443",
        "quic://[fe80::1%eth0]:443",
        "quic://[::ffff:127.0.0.1]:443",
        "quic://[::ffff:7f00:1]:443",
        "quic://[127.0.0.1]:443",
        "quic://[]:443",
        "quic://xn--ä:443",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_quic_address(text)
    assert refused.value.code == "bad_address"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_has_one_spelling(address: object, port: int) -> None:
    text = format_quic_address(str(address), port)
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is None:
        assert parse_quic_address(text) == (str(address), port)
