"""`statelog init`: the ceremony that begins a cluster, in one sitting or in several.

The folder keeps what the ceremony has so far: `genesis.sigreq`, then `term.sigreq`, `sequencer.json`, the key
files that were made here in `keys/`, and at the end the store and the file `anchor`. Running the command
again goes on from there, so that root and control keys may sign on other machines in between; so does a run
after one that was cut off. What is there is never written anew: neither a key, nor a request, nor a log.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from statelog import ceremony, genesis
from statelog.ceremony import Request
from statelog.cli.common import (
    Form,
    OutputOption,
    StoreOption,
    in_words,
    note,
    now,
    print_json,
    say,
    say_command,
    store_url,
)
from statelog.cli.keys import ask_passphrase, new_passphrase
from statelog.cli.opened import ANCHOR_FILE
from statelog.cli.review import read_request
from statelog.cli.templates.common import parse_duration, read_enrollment, read_json
from statelog.errors import UsageError
from statelog.io.database import open_database
from statelog.io.files import is_taken, make_folder, write_new, write_replacing
from statelog.io.held import HeldKey, LocalKey
from statelog.io.keyfiles import COSTS, create_key_file, read_key_info
from statelog.io.sequencer import Sequencer
from statelog.io.signers import is_source, load_signer
from statelog.io.store import Store
from statelog.state import AuthorityState
from statelog.wording import headline

SCHEMA = "statelog.init.v1"
SEED_BYTES = 32
GENESIS, TERM, SEQUENCER, STORE = "genesis.sigreq", "term.sigreq", "sequencer.json", "state.db"

Holders = Annotated[
    list[str], typer.Option(metavar="ISSUER[=SOURCE]", help="Repeatable. Makes a key here without a SOURCE.")
]
NOBODY: list[str] = []  # the default of a repeatable option; each call gets a copy


@dataclass
class Keyring:
    """The keys that can sign here: made or named in this run, and key files in the ceremony's folder."""

    folder: Path
    cost: str = "moderate"
    signers: dict[str, HeldKey] = field(default_factory=dict)  # by key id
    opened: dict[str, HeldKey] = field(default_factory=dict)  # by source

    def make(self, name: str, issuer: str, custody: str) -> HeldKey:
        """A new key file `keys/NAME.key`, or the one of a former run, opened."""
        path = self.folder / "keys" / f"{name}.key"
        if is_taken(path):
            return self.open(f"file:{path}")
        make_folder(path.parent)
        seed = secrets.token_bytes(SEED_BYTES)
        create_key_file(
            path,
            new_passphrase(str(path)),
            name=name,
            issuer_id=issuer,
            custody=custody,
            cost=COSTS[self.cost],
            seed=seed,
        )
        signer = LocalKey(seed, name, issuer, custody)
        self.signers[signer.info.key_id] = signer
        return signer

    def open(self, source: str) -> HeldKey:
        """The key at `source`, remembered for signing; its passphrase is asked for once."""
        if source.startswith("file:"):
            key_id = read_key_info(source.removeprefix("file:")).key_id
            if key_id in self.signers:
                return self.signers[key_id]
        if source not in self.opened:
            self.opened[source] = load_signer(source, ask=ask_passphrase)
        signer = self.opened[source]
        self.signers[signer.info.key_id] = signer
        return signer

    def sign(self, request: Request, state: AuthorityState | None) -> Request:
        """`request` with the signature of every key here that counts for it and is still missing."""
        sets = ceremony.required_sets(request, state, now())
        for path in sorted((self.folder / "keys").glob("*.key")):
            key_id = read_key_info(path).key_id
            if key_id not in self.signers and ceremony.capacity_of(key_id, sets) is not None:
                self.open(f"file:{path}")
        for key_id, signer in self.signers.items():
            capacity = ceremony.capacity_of(key_id, sets)
            if capacity is not None and all(one["key_id"] != key_id for one in request.signatures):
                request = ceremony.attach(request, signer, *capacity)
        return request


@dataclass(frozen=True, slots=True)
class Choices:
    """What the founders decide, from flags or from the wizard."""

    name: str
    development: bool
    root: list[str]
    control: list[str]
    witness: list[str]
    recovery: list[str]
    root_threshold: int
    control_threshold: int
    witness_threshold: int
    faulty: int
    recovery_threshold: int
    recovery_delay: str
    sequencer_node: str


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the ceremony keeps its files.")],
    name: Annotated[
        str | None, typer.Option(help="The cluster's name; 26 random characters follow it.")
    ] = None,
    development: Annotated[
        bool | None,
        typer.Option(
            "--development/--production", help="Development takes one signer and marks all it accepts."
        ),
    ] = None,
    root: Holders = NOBODY,
    root_threshold: Annotated[int | None, typer.Option(min=1, help="A majority by default.")] = None,
    control: Holders = NOBODY,
    control_threshold: Annotated[int | None, typer.Option(min=1, help="A majority by default.")] = None,
    witness: Holders = NOBODY,
    faulty: Annotated[
        int | None, typer.Option(min=0, help="How many witnesses may lie; fewer than a third.")
    ] = None,
    witness_threshold: Annotated[
        int | None, typer.Option(min=1, help="All but the faulty by default.")
    ] = None,
    recovery: Holders = NOBODY,
    recovery_threshold: Annotated[int | None, typer.Option(min=0, help="A majority by default.")] = None,
    recovery_delay: Annotated[
        str, typer.Option(metavar="7d", help="How long a recovery waits in the open.")
    ] = "7d",
    sequencer: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="The sequencer's key; made by default.")
    ] = None,
    sequencer_node: Annotated[
        str | None, typer.Option(metavar="NODE_ID", help="The node that sequences.")
    ] = None,
    cluster_id: Annotated[
        str | None, typer.Option(help="A whole cluster id, when keys were enrolled before.")
    ] = None,
    clock_skew: Annotated[str, typer.Option(metavar="60s", help="How far honest clocks may differ.")] = "60s",
    max_checkpoint_age: Annotated[
        str, typer.Option(metavar="1h", help="When a silent log becomes an alarm.")
    ] = "1h",
    valid_for: Annotated[str, typer.Option(metavar="200d", help="The first descriptor's validity.")] = "200d",
    key: Annotated[
        list[str], typer.Option("--key", metavar="SOURCE", help="A key to sign with; repeatable.")
    ] = NOBODY,
    cost: Annotated[str | None, typer.Option(help=f"Of new key files: {', '.join(COSTS)}.")] = None,
    store: StoreOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Begin a cluster: its keys, its first descriptor, its first term, its store and its trust anchor.

    A holder is ISSUER (a key file is made here), ISSUER=SOURCE (a key that can sign here: file:PATH,
    env:NAME, agent:KEY or pkcs11:URI), or ISSUER=FILE.json (an enrollment; its owner signs elsewhere, then
    this command is run again).

    Examples:

      statelog init farm --name farm --development

      statelog init farm --name farm --production --root a --root b --root c --control a --control b
      --witness w1 --witness w2 --witness w3 --witness w4 --recovery a --recovery b --sequencer-node ID
    """
    if cost is not None and cost not in COSTS:
        raise UsageError(f"--cost is one of {', '.join(COSTS)}; not {cost!r}")
    if is_taken(folder / ANCHOR_FILE):
        raise UsageError(f"{folder} has an anchor: its cluster has begun already")
    make_folder(folder)
    keyring = Keyring(folder)
    for source in key:
        keyring.open(source)
    if not is_taken(folder / GENESIS):
        choices = _choose(
            name=name or (cluster_id or "").rpartition(".")[0] or None,
            development=development,
            holders={"root": root, "control": control, "witness": witness, "recovery": recovery},
            thresholds={"root": root_threshold, "control": control_threshold, "recovery": recovery_threshold},
            witness_threshold=witness_threshold,
            faulty=faulty,
            recovery_delay=recovery_delay,
            sequencer_node=sequencer_node,
        )
        keyring.cost = cost or ("interactive" if choices.development else "moderate")
        durations = (
            parse_duration(clock_skew),
            parse_duration(max_checkpoint_age),
            parse_duration(valid_for),
        )
        _found(folder, keyring, choices, cluster_id, sequencer, durations)
    _go_on(folder, keyring, sequencer, store or str(folder / STORE), output)


# -- the first sitting: what the descriptor says --


def _choose(
    *,
    name: str | None,
    development: bool | None,
    holders: dict[str, list[str]],
    thresholds: dict[str, int | None],
    witness_threshold: int | None,
    faulty: int | None,
    recovery_delay: str,
    sequencer_node: str | None,
) -> Choices:
    """Flags, completed by questions on a terminal and by defaults where there is one."""
    name = name or _ask("Name of the cluster", "--name")
    by_default = bool(development)  # by its option alone: one key of each sort, and nothing more is asked
    if development is None:
        mode = _ask("Mode: development or production", "--development or --production", "production")
        if mode not in ("development", "production"):
            raise UsageError(f"the mode is development or production, not {mode!r}")
        development = mode == "development"
    defaults = {"root": "operator", "control": "operator", "witness": "witness-1", "recovery": ""}
    chosen: dict[str, list[str]] = {}
    for part, given in holders.items():
        if given or by_default:
            chosen[part] = given or [defaults[part]] * bool(defaults[part])
        else:
            default = defaults[part] if development else None
            answer = _ask(f"Holders of {part} keys, separated by spaces", f"--{part}, repeated", default)
            chosen[part] = answer.split()
    counts = {part: given or len(chosen[part]) // 2 + 1 for part, given in thresholds.items()}
    if not chosen["recovery"]:
        counts["recovery"] = 0
    lying = (len(chosen["witness"]) - 1) // 3 if faulty is None else faulty
    if sequencer_node is None and not development:
        sequencer_node = _ask("Node id of the host that sequences", "--sequencer-node")
    return Choices(
        name=name,
        development=development,
        **chosen,
        root_threshold=counts["root"],
        control_threshold=counts["control"],
        recovery_threshold=counts["recovery"],
        witness_threshold=witness_threshold or len(chosen["witness"]) - lying,
        faulty=lying,
        recovery_delay=recovery_delay,
        sequencer_node=sequencer_node or "",
    )


def a_person_is_here() -> bool:
    """Whether somebody can answer questions."""
    return sys.stdin.isatty()


def _ask(question: str, flag: str, default: str | None = None) -> str:
    if not a_person_is_here():
        raise UsageError(f"nobody is here to ask; give {flag}")
    answer: str = typer.prompt(question, default=default, err=True)
    return answer


def _found(
    folder: Path,
    keyring: Keyring,
    choices: Choices,
    cluster_id: str | None,
    sequencer: str | None,
    durations: tuple[int, int, int],
) -> None:
    """Gather the keys, write the sequencer's entry and the request for the first descriptor."""
    cluster = cluster_id or genesis.new_cluster_id(choices.name, secrets.token_bytes)
    skew_s, age_s, valid_s = durations
    custody = "online" if choices.development else "offline"
    plan = genesis.Plan(
        cluster_id=cluster,
        mode="development" if choices.development else "production",
        root=tuple(_entry(keyring, cluster, "root", spec, custody) for spec in choices.root),
        root_threshold=choices.root_threshold,
        control=tuple(_entry(keyring, cluster, "control", spec, "online") for spec in choices.control),
        control_threshold=choices.control_threshold,
        witnesses=tuple(_entry(keyring, cluster, "witness", spec, "online") for spec in choices.witness),
        witness_threshold=choices.witness_threshold,
        faulty=choices.faulty,
        recovery=tuple(
            _entry(keyring, cluster, "recovery", spec, "offline")["key_id"] for spec in choices.recovery
        ),
        recovery_threshold=choices.recovery_threshold,
        recovery_delay_s=parse_duration(choices.recovery_delay) if choices.recovery else 0,
        clock_skew_s=skew_s,
        max_checkpoint_age_s=age_s,
    )
    node_id = choices.sequencer_node or keyring.make("node", "node", "online").info.key_id
    signer = keyring.open(sequencer) if sequencer else keyring.make("sequencer", node_id, "online")
    entry = genesis.sequencer_entry(signer, cluster, node_id)
    request = genesis.first_descriptor(plan, now(), valid_s=valid_s)
    write_replacing(folder / SEQUENCER, orjson.dumps(entry, option=orjson.OPT_INDENT_2) + b"\n")
    write_new(folder / GENESIS, ceremony.encode_request(request), 0o644)


def _entry(keyring: Keyring, cluster: str, part: str, spec: str, custody: str) -> dict[str, Any]:
    """The KEY object of a holder: of a key made here, a key named here, or an enrollment."""
    issuer, _, source = spec.partition("=")
    name = issuer if part == "witness" else None
    if is_source(source):
        held = keyring.open(source)
        return genesis.key_entry(held, cluster, issuer, held.info.custody or custody, name=name)
    if source:
        entry = read_enrollment(Path(source))
        if not genesis.proved(entry, cluster):
            raise UsageError(f"{source} proves no key of {cluster}; enroll it with that --cluster-id")
        if (entry["issuer_id"] != issuer) or (name is not None and entry.get("name", name) != name):
            raise UsageError(f"{source} is of {entry['issuer_id']}, not of {issuer}")
        return entry if name is None else {**entry, "name": name}
    signer = keyring.make(f"{part}-{issuer}", issuer, custody)
    return genesis.key_entry(signer, cluster, issuer, custody, name=name)


# -- every sitting: sign what can be signed here, go on as far as that leads --


def _go_on(folder: Path, keyring: Keyring, sequencer: str | None, store: str, output: Form) -> None:
    descriptor = _signed(folder / GENESIS, keyring, None, output)
    if descriptor is None:
        return
    log = genesis.genesis_replay(descriptor)
    path = folder / TERM
    if not is_taken(path):
        request = genesis.first_term(log, [read_json(folder / SEQUENCER)], now())
        write_new(path, ceremony.encode_request(request), 0o644)
    term = _signed(path, keyring, log.state, output)
    if term is None:
        return
    source = sequencer or f"file:{folder / 'keys' / 'sequencer.key'}"
    engine = open_database(store_url(store), create=True)
    try:
        head = Store(engine).head()
        if head is None:
            signer = keyring.open(source)
            Sequencer.create(engine, descriptor.signed_record(), term.signed_record(), signer, now=now())
        elif head.anchor != descriptor.record_id:
            raise UsageError(
                f"{store_url(store)} holds the log of anchor {head.anchor}; give another --store"
            )
        # else a run before this one was cut off between the log and the anchor
    finally:
        engine.dispose()
    write_new(folder / ANCHOR_FILE, descriptor.record_id.encode() + b"\n", 0o644)
    _report_begun(folder, store, descriptor, output)


def _signed(path: Path, keyring: Keyring, state: AuthorityState | None, output: Form) -> Request | None:
    """The request with every signature that can be had here; None, with a report, while some are missing."""
    request = read_request(path)
    signed = keyring.sign(request, state)
    if signed != request:
        write_replacing(path, ceremony.encode_request(signed))
    progress = ceremony.progress(signed, ceremony.required_sets(signed, state, now()))
    if progress.complete:
        return signed
    if output is Form.JSON:
        document = {
            "schema": SCHEMA,
            "begun": False,
            "waiting_for": str(path),
            "quorums": [asdict(line) for line in progress.quorums],
            "wrong_signatures": list(progress.wrong),
        }
        print_json(document)
        return None
    say(
        headline(signed.record),
        *(f"quorum     {line}" for line in progress.quorums),
        *(f"wrong      the signature of {key_id} does not count" for key_id in progress.wrong),
        f"next       have {path} signed with `statelog sign`, then run this command again",
    )
    return None


def _report_begun(folder: Path, store: str, descriptor: Request, output: Form) -> None:
    anchor = descriptor.record_id
    if output is Form.JSON:
        files = {"anchor_file": str(folder / ANCHOR_FILE), "store": store_url(store)}
        cluster = descriptor.record["cluster_id"]
        print_json({"schema": SCHEMA, "begun": True, "cluster_id": cluster, "anchor": anchor, **files})
        return
    say(
        headline(descriptor.record),
        f"store      {store_url(store)}",
        f"anchor     {anchor}  ({folder / ANCHOR_FILE})",
        *in_words(anchor),
        "next       give the anchor to every node and auditor",
    )
    say_command("look", "statelog", "status", store=store, root=str(folder / ANCHOR_FILE))
    for warning in ceremony.warnings(descriptor.record, None):
        note(f"warning: {warning}")
    if descriptor.record["mode"] == "production":
        say("keys       move each holder's files from keys/ to that holder, and keep none of them together")
