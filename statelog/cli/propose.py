"""`statelog propose KIND`: drafting a record for its signers, one command per kind."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from statelog import ceremony, wording
from statelog.admission import home_of
from statelog.cli.common import (
    AcceptRiskOption,
    Form,
    OutputOption,
    RootOption,
    StoreOption,
    note,
    now,
    print_json,
    say,
    say_command,
)
from statelog.cli.opened import opened
from statelog.cli.review import Review, request_document
from statelog.cli.templates import TEMPLATES, Template
from statelog.cli.templates.common import NOTHING, Current, Fields, parse_duration, read_json
from statelog.errors import UsageError
from statelog.io.files import write_new
from statelog.records.base import Kind
from statelog.risks import check_accepted
from statelog.state import AUTHORITY_LOG, AuthorityState

app = typer.Typer(no_args_is_help=True, help="Draft a record and write it as a request for signatures.")

ALIASES = {"registry.gossip_record": "registry.record"}


def _common(
    store: StoreOption = None,
    root: RootOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The request file to write; named by default.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Own fields as JSON; options add to it.")
    ] = None,
    valid_for: Annotated[
        str | None, typer.Option(metavar="90d", help="Validity; half the longest by default.")
    ] = None,
    epoch: Annotated[int | None, typer.Option(min=1, help="The epoch; the next one by default.")] = None,
    generation: Annotated[int | None, typer.Option(min=0, help="Order among copies no log has seen.")] = None,
    issuer_node_id: Annotated[str, typer.Option(help="Where it was drafted; proves nothing.")] = "operator",
    issuer_role: Annotated[
        str | None, typer.Option(help="Who signs, where a kind leaves a choice: recovery-authority, …")
    ] = None,
    title: Annotated[str, typer.Option(help="A line for the signers; not signed.")] = "",
    accept_risk: AcceptRiskOption = NOTHING,
    output: OutputOption = Form.TABLE,
) -> None:
    """The options that every kind has: read for its signature, never called."""
    return


def _command(kind: Kind, template: Template) -> Callable[..., None]:
    """A command whose options are the template's, then the common ones."""
    own = list(inspect.signature(template, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(_common, eval_str=True).parameters.values())

    def command(**options: Any) -> None:
        mine = {parameter.name: options.pop(parameter.name) for parameter in own}
        _propose(kind, template, mine, **options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in (*own, *shared)]
    command.__doc__ = template.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


for _name, _template in TEMPLATES.items():
    _made = _command(ceremony.kind_named(_name), _template)
    app.command(ALIASES.get(_name, _name))(_made)
    if _name in ALIASES:
        app.command(_name, hidden=True)(_made)


def _propose(  # the common options, as they come
    kind: Kind,
    template: Template,
    options: Fields,
    *,
    store: str | None,
    root: str | None,
    out: Path | None,
    body: Path | None,
    valid_for: str | None,
    epoch: int | None,
    generation: int | None,
    issuer_node_id: str,
    issuer_role: str | None,
    title: str,
    accept_risk: list[str],
    output: Form,
) -> None:
    given = read_json(body) if body else {}
    if not isinstance(given, dict):
        raise UsageError(f"{body} must hold a JSON object of the record's own fields")
    with opened(store, root) as log_:
        current = Current(log_)
        own = {**template(current, **options), **given}
        home = _home(kind, own, current)
        if home != AUTHORITY_LOG:
            current = Current(log_, log_.replay(home, verify_signatures=False))
            own = {**template(current, **options), **given}
        if generation is not None:
            own["generation"] = generation
        request = ceremony.propose(
            kind,
            own,
            current.replay.state,
            now(),
            log=current.replay,
            issuer_node_id=issuer_node_id,
            issuer_role=issuer_role,
            epoch=epoch,
            valid_s=None if valid_for is None else parse_duration(valid_for),
            title=title,
        )
        state = current.replay.state
        check_accepted(request.record, state, now(), accept_risk)
        progress = ceremony.progress(
            request, ceremony.required_sets(request, state, now()), state.key_sets.values()
        )
    path = out or Path(_file_name(request))
    write_new(path, ceremony.encode_request(request), 0o644)
    if output is Form.JSON:
        print_json(request_document(request, path, progress, Review(request, state, None).bootstrap))
    else:
        _print(request, path, progress, state)
        say_command("next", "statelog", "sign", path, "--key", "file:YOUR.key", store=store, root=root)


def _print(request: ceremony.Request, path: Path, progress: ceremony.Progress, state: AuthorityState) -> None:
    say(
        wording.headline(request.record),
        f"written    {path}",
        f"record id  {request.record_id}",
        *(f"needs      {line}" for line in progress.quorums),
    )
    for warning in ceremony.warnings(request.record, state):
        note(f"warning: {warning}")


def _home(kind: Kind, own: Fields, current: Current) -> str:
    """The log that a draft belongs in; one that does not say enough is refused for its form in any."""
    try:
        return home_of(kind, own, current.replay.state)
    except (KeyError, TypeError, AttributeError, ValueError):
        return AUTHORITY_LOG


def _file_name(request: ceremony.Request) -> str:
    parts = [request.kind.name, *request.kind.subject(request.record), str(request.record["epoch"])]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(part[:24] for part in parts if part)) + ".sigreq"
