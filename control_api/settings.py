"""What one replica is told: read once from `control-api.toml` in its folder, overridden by the command
line.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from control_api import limits
from statelog.errors import Refused, UsageError
from statelog.io.files import read_bounded

FILE_NAME = "control-api.toml"
_RECORD_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica. `store` is a database URL; `anchor` the hex record id of the log's entry 0.

    `sequencer_key` is a key source (`statelog.io.signers`) when this replica may sequence; without one,
    submitted records go to the outbox of the store, which the node daemon forwards. `api_token_file` holds a
    token that callers must show; it grants access to this replica and no authority.
    """

    store: str
    anchor: str
    host: str = "127.0.0.1"
    port: int | None = None
    tls_certificate: Path = Path("tls.pem")
    tls_key: Path = Path("tls.key")
    sequencer_key: str | None = None
    api_token_file: Path | None = None
    wait_s: float = limits.DEFAULT_WAIT_S

    def __post_init__(self) -> None:
        if not _RECORD_ID.fullmatch(self.anchor):
            raise UsageError(f"anchor {self.anchor!r} is not a record id of 64 hex digits")
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"port {self.port} is not one of 1 to 65535")
        if not 0 <= self.wait_s <= limits.MAX_WAIT_S:
            raise UsageError(f"wait_s {self.wait_s} is not one of 0 to {limits.MAX_WAIT_S:g}")

    def api_token(self) -> str | None:
        """The token in its file, None when none is asked for. Raises UsageError."""
        if self.api_token_file is None:
            return None
        token = _read_text(self.api_token_file).strip()
        if not token:
            raise UsageError(f"{self.api_token_file} is empty; remove api_token_file to ask for no token")
        return token


_DEFAULT_PATHS = {"tls_certificate": "tls.pem", "tls_key": "tls.key"}
_TYPES: dict[str, tuple[type, ...]] = {"port": (int,), "wait_s": (int, float)}


def read_settings(folder: Path, **overrides: Any) -> Settings:
    """The settings of a replica's folder. Overrides that are None do not count; paths are taken from the
    folder, and `anchor` may be the path of a file that holds it. Raises UsageError.
    """
    path = folder / FILE_NAME
    table = _read_table(path)
    table.update({name: value for name, value in overrides.items() if value is not None})
    known = [field.name for field in fields(Settings)]
    for name, value in table.items():
        if name not in known:
            raise UsageError(f"{path}: unknown setting {name!r}; known are {', '.join(known)}")
        if not isinstance(value, _TYPES.get(name, (str, Path))) or isinstance(value, bool):
            raise UsageError(f"{path}: {name} = {value!r} is not of the right type")
    for name in ("store", "anchor"):
        if name not in table:
            raise UsageError(f"no {name}: give --{name}, or set it in {path}")
    named = {name: folder / table.get(name, f"{default}") for name, default in _DEFAULT_PATHS.items()}
    if "api_token_file" in table:
        named["api_token_file"] = folder / table["api_token_file"]
    return Settings(**{**table, **named, "anchor": read_anchor(str(table["anchor"]))})


def read_anchor(text: str) -> str:
    """An anchor given as such, or as the path of a file that holds it. Raises UsageError."""
    if _RECORD_ID.fullmatch(text):
        return text
    try:
        return _read_text(Path(text)).strip()
    except UsageError as error:
        raise UsageError(
            f"anchor {text!r} is neither 64 hex digits nor a readable file that holds them"
        ) from error


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read_text(path))
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            sentence = f"there is no {path}; `control-api init --dir {path.parent}` makes one"
            raise UsageError(sentence) from error
        raise
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _read_text(path: Path) -> str:
    """A small file of text. Raises UsageError."""
    try:
        return read_bounded(path, limits.MAX_SETTINGS_BYTES, "SL-SIZE").decode()
    except (Refused, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a small file of UTF-8 text: {error}") from error
