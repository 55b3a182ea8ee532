"""House rules that linters cannot say, held over every tracked file of the tree."""

# Long on purpose: each house rule stands beside its own proof that it can fail.
from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from statelog.findings import CODES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("statelog", "projections", "fabric", "control_api", "migrations", "ops")
PURE_PACKAGES = ("statelog", "projections", "fabric")
SHELL_FOLDERS = {"io", "cli"}
MAX_LINES = 450  # about 400 is the aim; past this a file says why it is long
SELF_EVIDENT_STATEMENTS = 2  # a public method of so few statements may go without a docstring
LONG_FILE_MARKER = re.compile(r"^# Long on purpose: .{20,}$", re.MULTILINE)

WORLD_MODULES = {
    *("time", "os", "socket", "asyncio", "threading", "logging", "pathlib", "secrets", "ssl", "http", "uuid"),
    *(
        "subprocess",
        "multiprocessing",
        "concurrent",
        "select",
        "selectors",
        "signal",
        "tempfile",
        "shutil",
        "glob",
    ),
    *(
        "sqlite3",
        "sqlalchemy",
        "alembic",
        "httpx",
        "fastapi",
        "uvicorn",
        "typer",
        "rich",
        "fcntl",
        "mmap",
        "sched",
    ),
    *(
        "aioquic",
        "qh3",
        "urllib",
        "getpass",
        "sys",
        "platform",
        "resource",
        "queue",
        "contextvars",
        "warnings",
    ),
}
WORLD_BUILTINS = {"open", "print", "input", "breakpoint"}
WORLD_CALLS = {
    "now": "reads the clock",
    "utcnow": "reads the clock",
    "today": "reads the clock",
    "urandom": "draws randomness",
    "generate": "draws randomness (a key from bytes that came in is a pure function)",
    "token_bytes": "draws randomness",
}


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every file of the tree that is, or is about to be, under version control; all of an archive."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
    else:
        ignored = (ROOT / ".gitignore").read_text().split()
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [str(path) for path in found if not any(made_here(part, ignored) for part in path.parts)]
    return tuple(ROOT / name for name in sorted(set(names) - {""}) if (ROOT / name).is_file())


def made_here(part: str, ignored: list[str]) -> bool:
    """Whether a folder of that name is made in a checkout and belongs to none: .venv/, caches."""
    return any(fnmatch(part, one.rstrip("/")) for one in ignored)


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path.relative_to(ROOT), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def sources(*packages: str) -> Iterator[tuple[Path, str, ast.Module]]:
    for path, text in texts():
        if path.suffix == ".py" and path.parts[0] in packages:
            yield path, text, ast.parse(text, str(path))


def is_pure(path: Path) -> bool:
    return path.parts[0] in PURE_PACKAGES and not SHELL_FOLDERS & set(path.parts[:-1])


def report(violations: list[str]) -> None:
    assert not violations, f"{len(violations)} violations:\n" + "\n".join(violations)


# -- the world stays outside -----------------------------------------------------------------------------


def world_access(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and reason of each place where a module reaches for time, chance, files, sockets or threads.

    `random.Random` may be named, as the type of an argument; `if TYPE_CHECKING:` may name shells.
    """
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in WORLD_MODULES:
                    yield node.lineno, f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            top = module.split(".")[0]
            names = {alias.name for alias in node.names}
            if top in WORLD_MODULES or (top == "random" and names != {"Random"}):
                yield node.lineno, f"imports from {module}"
            if module == "nacl" and "utils" in names:
                yield node.lineno, "imports nacl.utils, whose randomness is the world's"
            if SHELL_FOLDERS & set(module.split(".")) and top in PURE_PACKAGES and node not in typing_only:
                yield node.lineno, f"imports the shell {module}"
        elif isinstance(node, ast.Call):
            function = node.func
            if ast.unparse(function).startswith("random."):
                yield node.lineno, f"calls {ast.unparse(function)}()"
            if isinstance(function, ast.Name) and function.id in WORLD_BUILTINS | {"Random"}:
                yield node.lineno, f"calls {function.id}()"
            elif isinstance(function, ast.Attribute) and function.attr in WORLD_CALLS:
                if (
                    function.attr == "now"
                    and isinstance(function.value, ast.Name)
                    and function.value.id == "self"
                ):
                    continue
                yield node.lineno, f".{function.attr}() {WORLD_CALLS[function.attr]}"


def test_pure_modules_never_touch_the_world() -> None:
    report(
        [
            f"{path}:{line}: {why}"
            for path, _, tree in sources(*PURE_PACKAGES)
            if is_pure(path)
            for line, why in world_access(tree)
        ]
    )


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "import os.path",
        "from socket import AF_INET",
        "import random\nrandom.random()",
        "from random import randbytes",
        "from nacl import utils",
        "from statelog.io.store import Store",
        "import datetime\ndatetime.datetime.now()",
        "from nacl.signing import SigningKey\nSigningKey.generate()",
        "open('x')",
        "from random import Random\nRandom(1)",
    ],
)
def test_the_world_check_sees(text: str) -> None:
    assert list(world_access(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "import hashlib",
        "from random import Random\ndef f(r: Random) -> float: return r.random()",
        "import datetime\ndatetime.datetime.fromtimestamp(0, datetime.UTC)",
        "from statelog import limits",
    ],
)
def test_the_world_check_lets_pure_code_pass(text: str) -> None:
    assert not list(world_access(ast.parse(text)))


# -- shape of files --------------------------------------------------------------------------------------


def test_files_are_short_or_say_why_not() -> None:
    report(
        [
            f"{path}: {lines} lines; split it, or say why in a line `# Long on purpose: …`"
            for path, text, _ in sources(*PACKAGES, "tests")
            if (lines := text.count("\n")) > MAX_LINES and not LONG_FILE_MARKER.search(text)
        ]
    )


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Public modules, classes, functions and methods without a docstring; empty modules are not public.

    Plain values (only fields) are explained by their machine, methods of a statement or two by their name.
    """
    if tree.body and ast.get_docstring(tree) is None:
        yield 1, "module"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not _overload(node) and not _plain_value(node):
                yield node.lineno, node.name
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if (
                    isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not inner.name.startswith("_")
                    and ast.get_docstring(inner) is None
                    and not _overload(inner)
                    and not node.bases
                    and len(inner.body) > SELF_EVIDENT_STATEMENTS
                ):
                    yield inner.lineno, f"{node.name}.{inner.name}"


def _plain_value(node: ast.AST) -> bool:
    """A class that only lists fields."""
    return isinstance(node, ast.ClassDef) and all(
        isinstance(inner, ast.AnnAssign | ast.Assign | ast.Pass) for inner in node.body
    )


def _overload(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(decorator).split(".")[-1] in {"overload", "setter"} for decorator in decorators)


def test_public_names_have_docstrings() -> None:
    report(
        [
            f"{path}:{line}: {name} has no docstring"
            for path, _, tree in sources(*PACKAGES)
            if "versions" not in path.parts  # migrations explain themselves in their module docstring
            for line, name in undocumented(tree)
        ]
    )


def test_every_limit_has_a_reason() -> None:
    violations = []
    for path, text, tree in sources(*PACKAGES):
        if path.name != "limits.py":
            continue
        lines = text.splitlines()
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                own = "".join(lines[node.lineno - 1 : node.end_lineno])
                above, below = (
                    lines[node.lineno - 2].strip(),
                    lines[node.end_lineno or 0 : (node.end_lineno or 0) + 1],
                )
                documented = bool(below) and below[0].startswith('"""')
                if "#" not in own and not above.startswith("#") and not documented:
                    violations.append(f"{path}:{node.lineno}: no reason beside the limit")
    report(violations)


# -- nothing unfinished, nothing swallowed ---------------------------------------------------------------

UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")


def unfinished(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplemented" in ast.unparse(node.exc):
            yield node.lineno, "raises NotImplementedError"
        if isinstance(node, ast.ExceptHandler) and _does_nothing(node.body):
            yield node.lineno, "swallows an exception"
        if isinstance(node, ast.ClassDef):
            abstract = any(
                ast.unparse(base).split("[")[0].split(".")[-1] == "Protocol" for base in node.bases
            )
            for inner in node.body:
                if abstract and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    inner.body = [
                        ast.Expr(ast.Constant(0)),
                        *inner.body,
                    ]  # a protocol's body is its docstring
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            abstract = any(
                "abstract" in ast.unparse(d) or "overload" in ast.unparse(d) for d in node.decorator_list
            )
            if not abstract and _does_nothing(node.body):
                yield node.lineno, f"{node.name} has no body"


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass)
        or (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and (statement.value.value is Ellipsis or isinstance(statement.value.value, str))
        )
        for statement in body
    )


def test_nothing_is_unfinished_or_swallowed() -> None:
    violations = []
    for path, text, tree in sources(*PACKAGES, "tests"):
        violations += [f"{path}:{line}: {what}" for line, what in unfinished(tree)]
        violations += [
            f"{path}:{number}: unfinished"
            for number, line in enumerate(text.splitlines(), 1)
            if UNFINISHED.search(line)
        ]
    report(violations)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("def f():\n    pass", True),
        ("def f():\n    '''Later.'''", True),
        ("try:\n    f()\nexcept OSError:\n    pass", True),
        ("def f():\n    raise NotImplementedError", True),
        ("def f():\n    '''Nothing to say.'''\n    return None", False),
        ("from typing import Protocol\nclass P(Protocol):\n    def f(self): ...", False),
        ("try:\n    f()\nexcept OSError as e:\n    raise ValueError from e", False),
    ],
)
def test_the_unfinished_check_sees(text: str, bad: bool) -> None:
    assert bool(list(unfinished(ast.parse(text)))) is bad


BARE_IGNORE = re.compile(r"#\s*type:\s*ignore(\[[^\]]*\])?\s*$|#\s*noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?\s*$")


def test_every_silenced_check_has_its_reason_on_the_line() -> None:
    report(
        [
            f"{path}:{number}: says neither why nor how long"
            for path, text, _ in sources(*PACKAGES, "tests")
            for number, line in enumerate(text.splitlines(), 1)
            if BARE_IGNORE.search(line)
        ]
    )


def test_nobody_sleeps_where_an_event_belongs() -> None:
    """A sleep of zero yields to the loop; any other says on its line why time itself is what it waits for."""
    violations = []
    for path, text, tree in sources(*PACKAGES, "tests"):
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "time.sleep",
                "asyncio.sleep",
                "sleep",
            }:
                zero = bool(node.args) and ast.unparse(node.args[0]) in {"0", "0.0"}
                if not zero and "#" not in lines[node.lineno - 1]:
                    violations.append(f"{path}:{node.lineno}: sleeps without a reason on the line")
    report(violations)


# -- tests mean something --------------------------------------------------------------------------------

CHECKING_CALL = re.compile(
    r"assert|check|expect|refus|raises|warns|verif|must|report|run_state_machine|same|agree"
)


def asserts_something(function: ast.AST) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call) and CHECKING_CALL.search(ast.unparse(node.func).split(".")[-1]):
            return True
    return False


def test_every_test_asserts_something() -> None:
    report(
        [
            f"{path}:{node.lineno}: {node.name} asserts nothing"
            for path, _, tree in sources("tests")
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and not asserts_something(node)
        ]
    )


def test_every_finding_code_is_produced_by_a_test() -> None:
    """A code that no test names is a refusal nobody has seen happen."""
    tests = "\n".join(
        text for path, text in texts() if path.parts[0] == "tests" and path.name != "test_tidy.py"
    )
    report(
        [f"{code} is in no test" for code in sorted(CODES) if not re.search(rf"\b{re.escape(code)}\b", tests)]
    )


def test_every_raised_code_is_explained() -> None:
    """The other way round: a code in the source that the explanation table does not know."""
    literal = re.compile(r"""["'](SL-[A-Z][A-Z-]*)["']""")
    report(
        [
            f"{path}: {code} is not explained in CODES"
            for path, text, _ in sources(*PACKAGES)
            for code in sorted(set(literal.findall(text)) - set(CODES))
        ]
    )


# Modules whose content is data or types alone: what they say is exercised by every module that imports them.
WITHOUT_MIRROR = {"__init__", "limits", "errors", "findings", "base", "all"}


def test_every_pure_module_has_its_mirror_test() -> None:
    names = {path.relative_to(ROOT) for path in tracked()}
    report(
        [
            f"{path}: {mirror} is missing"
            for path, _, _ in sources(*PURE_PACKAGES)
            if is_pure(path) and path.stem not in WITHOUT_MIRROR
            for mirror in [Path("tests", *path.parts[:-1], f"test_{path.name}")]
            if mirror not in names
        ]
    )


# -- the project speaks of the project -------------------------------------------------------------------


def test_no_machine_paths() -> None:
    """Nothing in the tree knows where it is checked out, nor what lies beside it."""
    own = str(ROOT)
    beside = re.compile(r"\.\./shared|(?<![\w.])/" + r"work/|(?<![\w.])/" + r"root/|" + re.escape(own + "/"))
    report(
        [
            f"{path}:{number}: {line.strip()[:80]}"
            for path, text in texts()
            for number, line in enumerate(text.splitlines(), 1)
            if beside.search(line) and path.name != "test_tidy.py"
        ]
    )


def test_no_registry_addresses() -> None:
    """The lock file pins by hash and names no place to fetch from; nothing else does either."""
    option = re.compile(r"--(extra-)?" + r"index-url|--find-" + r"links|--trusted-" + r"host")
    violations = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if option.search(line) and path.name != "test_tidy.py"
    ]
    lock = (ROOT / "ops" / "requirements.lock").read_text()
    violations += [f"ops/requirements.lock: {found}" for found in re.findall(r"https?://\S+", lock)]
    assert "--hash=sha256:" in lock
    report(violations)
