"""What the documents name exists: files, commands with their options, methods in the tour of the code."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from control_api.cli import app as control_api
from fabric.cli.main import app as fabric
from statelog.cli.main import app as statelog
from tests.contracts.test_tidy import ROOT, tracked

APPS = {"statelog": statelog, "fabric": fabric, "control-api": control_api}
HERE = Path(__file__)  # its own examples name what is not there
FOLDERS = ("docs", "ops", "tests", "statelog", "fabric", "projections", "control_api", "migrations")
# A path as text names it: from a folder of this tree on, without what a pattern or an example leaves open.
NAMED = re.compile(rf"(?<![\w/.:~-])(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/](?![\w*<…{{])")
LINKED = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^(```|~~~)")


def documents() -> Iterator[Path]:
    return (path for path in tracked() if path.suffix == ".md" and path.name != "CHANGELOG.md")


def assert_sound(paths: Iterable[Path], faults_in: Callable[[Path], Iterable[str]]) -> None:
    found = [f"{path.relative_to(ROOT)}: {one}" for path in paths for one in faults_in(path)]
    assert not found, "\n".join(found)


# --- files ---


def missing_files(text: str, where: Path) -> list[str]:
    """Linked files that are not there, and those that code names."""
    linked = [one for one in LINKED.findall(text) if not (where / one).exists()]
    spans = [re.sub(r"(?<![\w.])\./", "", code) for code in CODE.findall(text)]
    named = [one for code in spans for one in NAMED.findall(code) if not is_there(one)]
    return linked + named


def is_there(name: str) -> bool:
    """A file or folder of the tree; a module may be named without its ending, a decision by its number."""
    decision = re.fullmatch(r"docs/adr/[0-9]{4}", name) and any(ROOT.glob(f"{name}-*.md"))
    return bool(decision) or (ROOT / name).exists() or (ROOT / f"{name}.py").is_file()


def test_files_that_documents_name_exist() -> None:
    assert_sound(documents(), lambda path: missing_files(path.read_text(), path.parent))


def test_documents_that_code_names_exist() -> None:
    named = re.compile(r"(?<![\w/.])docs/[\w./-]*\w")
    code = (path for path in tracked() if path.suffix in {".py", ".toml", ".html", ".js"} and path != HERE)
    assert_sound(code, lambda path: (one for one in named.findall(path.read_text()) if not is_there(one)))


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("[a](docs/wire.md) `docs/wire.md`, `tests/contracts/` and `statelog/limits`", []),
        ("[a](docs/none.md#x)", ["docs/none.md"]),
        ("`./ops/up` is there, `./ops/down` is not; docs/adr is", ["ops/down"]),
        ("`python -m tests.fuzz.corpus` and `fabric/nothing.py`", ["fabric/nothing.py"]),
        ("`docs/records/*.md`, `tests/<name>`, `/tmp/docs/x`, `https://x/docs/y`", []),
    ],
)
def test_the_file_check_sees(text: str, missing: list[str]) -> None:
    assert missing_files(text, ROOT) == missing


# --- commands ---


def commands_in(text: str) -> Iterator[str]:
    """Commands of this project in code: each line of a block, continued lines joined, and each span."""
    fenced = False
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        if FENCE.match(line):
            fenced = not fenced
            continue
        spans = [line] if fenced or line.startswith("    ") else CODE.findall(line)
        for span in spans:
            for part in re.split(r"[|;&]|\$\(", re.split(r"\s#\s", span)[0]):
                words = part.strip().removeprefix("$ ").removeprefix("./")
                if words.split(" ")[0] in APPS and not words.startswith(("statelog/", "fabric/")):
                    yield words


def faults_of(commands: Iterable[str]) -> list[str]:
    return [fault for one in commands if (fault := fault_of(one))]


def fault_of(command: str) -> str:
    """What of a command does not exist, "" if all of it does."""
    try:
        name, *words = shlex.split(command)
    except ValueError:  # a quote that the line does not close: prose
        return ""
    here = tree(name)
    while words and hasattr(here, "commands"):
        word = words[0]
        if word.startswith("-"):
            break
        if not re.fullmatch(r"[a-z][a-z0-9._-]*", word):
            return ""  # COMMAND, KIND: a place for one
        if word not in here.commands:
            return f"{name} has no command {word!r}"
        here = here.commands[words.pop(0)]
    known = {one for parameter in here.params for one in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--install-completion", "--show-completion"}
    for word in words:
        option = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in known:
            return f"{command!r}: no option {option}"
    return ""


@functools.cache
def tree(name: str) -> Any:
    return typer.main.get_command(APPS[name])


def test_commands_that_documents_name_exist() -> None:
    assert_sound(documents(), lambda path: faults_of(commands_in(path.read_text())))


def test_commands_that_messages_name_exist() -> None:
    """`statelog show` in what a program says: between backticks, in Python."""
    spans = re.compile(r"`((?:statelog|fabric|control-api) [a-z][^`\n{}]*)`")
    code = (path for path in tracked() if path.suffix == ".py" and path != HERE)
    assert_sound(code, lambda path: faults_of(spans.findall(path.read_text())))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("`statelog verify node.db --root anchor`", 0),
        ("    statelog request text move.sigreq | mail -s 'please sign' bob", 0),
        ("`statelog COMMAND --help`, `statelog propose KIND`", 0),
        ("`statelog verrify node.db`", 1),
        ("    statelog log --store node.db \\\n        --colour", 1),
        ("```\nfabric nod run\n```", 1),
        ("`x | statelog request reed -`", 1),
    ],
)
def test_the_command_check_sees(text: str, faults: int) -> None:
    assert len(faults_of(commands_in(text))) == faults


# --- methods ---

METHOD = re.compile(r"\b([A-Z][a-z]\w*)\.(_?[a-z][a-z_]*)\b")


@functools.cache
def classes() -> dict[str, list[type]]:
    """Every class of the packages by its name."""
    found: dict[str, list[type]] = {}
    for package in ("statelog", "projections", "fabric"):
        for one in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            for name, made in inspect.getmembers(importlib.import_module(one.name), inspect.isclass):
                if made.__module__ == one.name:
                    found.setdefault(name, []).append(made)
    return found


def missing_methods(text: str) -> list[str]:
    """What is written as a method of a class and is none of any class of that name."""
    return sorted(
        f"{name}.{method}"
        for name, method in set(METHOD.findall(text))
        if not any(hasattr(one, method) for one in classes().get(name, ()))
    )


def test_methods_that_the_tour_of_the_code_names_exist() -> None:
    assert not missing_methods((ROOT / "ARCHITECTURE.md").read_text())


def test_the_method_check_sees() -> None:
    assert missing_methods("`Port._on_readable`, then Session.handle → Replica.judge") == []
    assert missing_methods("Endpoint._on_readable, Sesion.handle") == [
        "Endpoint._on_readable",
        "Sesion.handle",
    ]
