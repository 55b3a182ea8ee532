"""A node's folder: what is read back, and what is one sentence and no node."""

from __future__ import annotations

import stat
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.io import config as settings
from fabric.io.config import ConfigError, NodeConfig, Seed
from fabric.peering import Address

HEX, OTHER = "a" * 64, "b" * 64
MINIMAL: dict[str, Any] = {
    "name": "home-1",
    "cluster": "farm.abc",
    "anchor": HEX,
    "listen": "127.0.0.1:7401",
}


def full(folder: Path) -> NodeConfig:
    return NodeConfig(
        folder=folder,
        name='home "one" \\ ünï\n',
        cluster="farm.abc",
        anchor=HEX,
        listen_host="::1",
        listen_port=7401,
        advertise=("quic://192.0.2.1:7401",),
        engine="qh3",
        store_url="sqlite:////srv/node.db",
        probe_jitter_s=0.5,
        metrics_listen="127.0.0.1:9464",
        qlog="traces",
        interactive_shards=1,
        bulk_shards=8,
        seal_suites=("chacha20-poly1305", "aes-256-gcm"),
        witness_key="keys/witness.key",
        witness_name="home-1.example",
        sequencer_key="env:SEQUENCER",
        partitions=("eu-1", "us-1"),
        roles=("relay", "entry"),
        seeds=(Seed(HEX, Address("quic://[::1]:7402", OTHER)),),
        services={"web-admin": "tcp://127.0.0.1:8080", "forward/ssh": "tcp://[::1]:22"},
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = full(tmp_path)
    settings.save(config)
    assert settings.load(tmp_path) == config


def test_no_partitions_is_not_all_of_them(tmp_path: Path) -> None:
    assert settings.from_table(tmp_path, MINIMAL).partitions is None
    none = replace(full(tmp_path), partitions=())
    settings.save(none)
    assert settings.load(tmp_path).partitions == ()


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_name_survives_the_file(name: str) -> None:
    config = settings.from_table(Path("/nowhere"), {**MINIMAL, "name": name})
    assert settings.from_table(Path("/nowhere"), tomllib.loads(config.to_toml())) == config


def test_the_least_there_must_be(tmp_path: Path) -> None:
    config = settings.from_table(tmp_path, MINIMAL)
    assert (config.engine, config.probe_jitter_s, config.seeds) == ("auto", 10.0, ())
    assert config.seal_suites is None
    assert settings.store_url(config) == f"sqlite:///{tmp_path}/node.db"
    assert config.listen == (("127.0.0.1", 7401),)
    reachable = (("127.0.0.1", 7401), ("2001:db8::1", 7402))
    assert settings.advertised(config, reachable) == ("quic://127.0.0.1:7401", "quic://[2001:db8::1]:7402")
    assert settings.advertised(config, ()) == ()
    assert settings.advertised(replace(config, advertise=("quic://a.example:1",)), reachable) == (
        "quic://a.example:1",
    )


def test_several_addresses_are_bound(tmp_path: Path) -> None:
    several = settings.from_table(tmp_path, MINIMAL | {"listen": ["192.0.2.7:7401", "[2001:db8::1]:7402"]})
    assert several.listen == (("192.0.2.7", 7401), ("2001:db8::1", 7402))
    assert settings.from_table(tmp_path, tomllib.loads(several.to_toml())) == several
    every = settings.from_table(tmp_path, MINIMAL | {"listen": "*:7401"})
    assert every.listen == (("*", 7401),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "name is missing"),
        ({"cluster": "Farm!"}, "not a cluster id"),
        ({"anchor": "abc"}, "64 lower-case hex"),
        ({"listen": "7401"}, "write host:port"),
        ({"listen": "127.0.0.1:99999"}, "write host:port"),
        ({"listen": []}, "or a list of at most 16"),
        ({"listen": ["127.0.0.1:1", 2]}, "or a list of at most 16"),
        ({"listen": [f"192.0.2.{n}:1" for n in range(17)]}, "or a list of at most 16"),
        ({"listen": ["127.0.0.1:1", "127.0.0.1:2"]}, "a host once"),
        ({"listen": ["*:1", "127.0.0.1:1"]}, "a wildcard alone"),
        ({"listen": ["192.0.2.1:1", "0.0.0.0:1"]}, "a wildcard alone"),
        ({"engine": "tcp"}, "one of auto, qh3, aioquic"),
        ({"witness_key": "w.key"}, "go together"),
        ({"probe_jitter_s": -1}, "seconds from 0 to 600"),
        ({"probe_jitter_s": True}, "seconds from 0 to 600"),
        ({"advertise": ["tcp://1.2.3.4:5"]}, "quic://host:port"),
        ({"seeds": [{"address": "quic://1.2.3.4:5", "node_id": HEX}]}, "cert_sha256"),
        ({"seeds": ["quic://1.2.3.4:5"]}, "[[seeds]]"),
        ({"services": {"web": "http://127.0.0.1:80"}}, "tcp://host:port"),
        ({"services": {"web admin": "tcp://127.0.0.1:80"}}, "not a service name"),
        ({"services": {"web": "tcp://127.0.0.1:0"}}, "tcp://host:port"),
        ({"metrics_listen": "0.0.0.0:9464"}, "a loopback address"),
        ({"metrics_listen": "home-1:9464"}, "a loopback address"),
        ({"metrics_listen": "9464"}, "write host:port"),
        ({"partitions": "eu-1"}, "a list of partition names"),
        ({"partitions": ["EU 1"]}, "a list of partition names"),
        ({"bulk_shards": 0}, "from 1 to 8"),
        ({"bulk_shards": 9}, "from 1 to 8"),
        ({"interactive_shards": True}, "from 1 to 8"),
        ({"seal_suites": []}, "each at most once"),
        ({"seal_suites": "aes-256-gcm"}, "each at most once"),
        ({"seal_suites": ["aes-256-gcm", "aes-128-gcm"]}, "each at most once"),
        ({"seal_suites": ["aes-256-gcm", "aes-256-gcm"]}, "each at most once"),
        ({"seal_suites": [1]}, "aes-256-gcm and chacha20-poly1305"),
        ({"sevices": {}}, "unknown setting 'sevices'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    table = {k: v for k, v in {**MINIMAL, **change}.items() if v is not None}
    with pytest.raises(ConfigError) as caught:
        settings.from_table(tmp_path, table)
    assert said in caught.value.sentence
    assert caught.value.code == "bad_config"


def test_a_folder_without_a_configuration_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fabric node init"):
        settings.load(tmp_path)
    (tmp_path / "node.toml").write_text("name = [")
    with pytest.raises(ConfigError, match=r"node\.toml"):
        settings.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["quic://1.2.3.4:5", f"quic://1.2.3.4:5#{HEX}", f"tcp://1.2.3.4:5#{HEX}:{OTHER}", f"#{HEX}:{OTHER}"],
)
def test_a_seed_is_an_address_and_two_pins(text: str) -> None:
    assert Seed.parse(f"quic://1.2.3.4:5#{HEX}:{OTHER}") == Seed(HEX, Address("quic://1.2.3.4:5", OTHER))
    with pytest.raises(ConfigError):
        Seed.parse(text)


def test_the_node_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    made = settings.create_node_key(tmp_path)
    path = tmp_path / settings.KEY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert settings.create_node_key(tmp_path) == settings.load_node_key(tmp_path) == made
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        settings.load_node_key(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not base64!", b"c2hvcnQ=", b"A" * 300])
def test_what_is_no_node_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / settings.KEY_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        settings.load_node_key(tmp_path)


def test_an_existing_configuration_is_not_overwritten(tmp_path: Path) -> None:
    settings.save(full(tmp_path))
    with pytest.raises(ConfigError, match="exists already"):
        settings.save(full(tmp_path))


def test_key_files_are_sought_in_the_folder(tmp_path: Path) -> None:
    config = settings.from_table(tmp_path, MINIMAL)
    assert settings.key_source(config, "w.key") == f"file:{tmp_path}/w.key"
    assert settings.key_source(config, "/etc/w.key") == "file:/etc/w.key"
    assert settings.key_source(config, "file:w.key") == f"file:{tmp_path}/w.key"
    for elsewhere in ("env:W", "agent:", "agent:alice@desk", "pkcs11:token=seq;object=key"):
        assert settings.key_source(config, elsewhere) == elsewhere
