"""`./ops/bench [NAME…]`: run benchmarks, print a table or one JSON document."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from ops.benchmarks.common import machine

SCHEMA = "fabric.bench.v1"
BENCHMARKS = {
    "verify": "audit of a log of two-of-three records, against all cores doing nothing but Ed25519",
    "append": "durable appends, 64 submitters and one, against the verifier and bare SQLite commits",
    "replay": "admission without signatures plus projections, records per second on one core",
    "startup": "a replica of a million entries, from the start of its process until it is open",
    "memory": "resident memory of `statelog verify`, of a short log and of one of a million entries",
    "proof": "inclusion proofs from a store of a million entries, and appending to it",
    "session": "sealed sessions: speed, latency and memory, against the bare engines and limits",
    "soak": "a session under bulk for minutes: no growth in memory or in CPU a byte",
}

EXAMPLES = """examples:
  ./ops/bench                      every benchmark, as a table
  ./ops/bench verify append        two of them
  ./ops/bench --quick -o json      a smoke test, as one document
  ./ops/bench soak --minutes 60    an hour under bulk
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    names = "\n".join(f"  {name:8} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="ops/bench",
        description="Measures this tree beside a named peer or limit, in one run. Stop other work first.",
        epilog=f"benchmarks:\n{names}\n\n{EXAMPLES}\nexit: 0 every target reached, 1 some missed, 2 usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all by default")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--runs", type=int, default=5, help="repetitions; the median counts (default 5)")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the soak (default 1)")
    parser.add_argument("--quick", action="store_true", help="smaller inputs: a smoke test, not a figure")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def main(arguments: list[str]) -> int:
    """Run what was asked for, in the order of the table above."""
    options = parse(arguments)
    results: list[dict[str, Any]] = []
    console = Console(stderr=True)
    for name, purpose in BENCHMARKS.items():
        if options.names and name not in options.names:
            continue
        console.print(f"measuring {name}: {purpose}", style="dim")
        more = {"minutes": options.minutes} if name == "soak" else {}
        results += importlib.import_module(f"ops.benchmarks.{name}").run(options.runs, options.quick, **more)
    if options.output == "json":
        document = {"schema": SCHEMA, "machine": machine(), "quick": options.quick, "results": results}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        _print_table(results)
    return 0 if all(line["ok"] for line in results) else 1


def _print_table(results: list[dict[str, Any]]) -> None:
    table = Table("benchmark", "value", "unit", "peer or limit", "its value", "ratio", "target", "")
    for line in results:
        table.add_row(
            line["name"],
            f"{line['value']:,g}",
            line["unit"],
            line["peer"],
            f"{line['peer_value']:,g}",
            f"{line['ratio']:g}",
            f"{line['target']:g}",
            "ok" if line["ok"] else "missed",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
