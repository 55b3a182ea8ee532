"""`./ops/up`: bring up a cluster on this machine, prove it step by step, stay up until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from ops.farm.farm import Farm, SetupError
from ops.farm.processes import ProcessError
from ops.farm.steps import STEPS, StepError

SCHEMA = "fabric.up.v1"
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
COLUMNS = 80  # of a terminal, at least; commands and addresses to copy stay whole

EPILOG = """examples:
  ./ops/up                         bring it up in .fabric and stay up until Ctrl-C
  ./ops/up --once -o json          prove every step, print one report, leave nothing running
  ./ops/up --dir /tmp/farm         another folder; a second run there goes on with the same cluster
  ./ops/up --engine aioquic        the reference QUIC engine instead of the fast one
"""


@dataclass(frozen=True)
class Step:
    """One proved (or failed) step of the report; `seconds` is wall time, `detail` what was seen."""

    name: str
    ok: bool
    seconds: float
    detail: dict[str, Any]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; argparse ends with exit code 2 on a wrong one."""
    parser = argparse.ArgumentParser(
        prog="ops/up",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(".fabric"), help="the farm's folder (default .fabric)"
    )
    parser.add_argument("--once", action="store_true", help="stop after the last step")
    parser.add_argument(
        "--keep", action="store_true", help="when a step fails, stay up for a look until Ctrl-C"
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "qh3", "aioquic", "mixed"],
        default="auto",
        help="QUIC engine",
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print")
    return parser.parse_args(arguments)


def prove(farm: Farm, say: bool) -> list[Step]:
    """Run the steps in order; the first that fails ends the list."""
    done: list[Step] = []
    for name, step in STEPS:
        if say and sys.stdout.isatty():
            print(f"  … {name}", end="\r", flush=True)
        start = time.monotonic()
        try:
            detail, ok = step(farm), True
            farm.processes.check()
        except StepError as failure:
            detail, ok = {"expected": failure.expected, "found": failure.found}, False
        except ProcessError as failure:
            detail, ok = {"expected": "every process stays up", "found": str(failure)}, False
        done.append(Step(name, ok, round(time.monotonic() - start, 3), detail))
        if say:
            print(line_of(done[-1]), flush=True)
        if not ok:
            break
    return done


def line_of(step: Step) -> str:
    """One step as a person reads it."""
    head = f"  {'✓' if step.ok else '✗'} {step.name:<16} {step.seconds:6.2f} s"
    if step.ok:
        under = " " * (len(head) + 2)
        proved = f"{head}  {step.detail.get('proved', '')}"
        return "\n".join(wrap(proved, COLUMNS, subsequent_indent=under, break_long_words=False))
    return f"{head}\n      expected: {step.detail['expected']}\n      found:    {step.detail['found']}"


def report_of(farm: Farm, steps: list[Step]) -> dict[str, Any]:
    """The report in schema `fabric.up.v1`."""
    return {
        "schema": SCHEMA,
        "ok": len(steps) == len(STEPS) and all(step.ok for step in steps),
        "anchor": farm.anchor,
        "store": farm.store_url,
        "control_api": farm.control_url,
        "steps": [asdict(step) for step in steps],
    }


def print_addresses(farm: Farm) -> None:
    """What to try next."""
    folder = farm.folder
    print(
        f"""
The farm is up. Ctrl-C stops all of it.

  control API   {farm.control_url}/docs
  certificate   {farm.tls_certificate}
  console       {farm.control_url}/console
  anchor        {farm.anchor}

  .venv/bin/fabric status --dir {folder}/nodes/phone-a
  .venv/bin/fabric forward --dir {folder}/nodes/phone-a 8080 web-admin &
  curl --retry 5 --retry-connrefused http://127.0.0.1:8080/whoami
  .venv/bin/statelog log --store {folder}/nodes/control-1/node.db
  .venv/bin/statelog verify {folder}/nodes/control-1/node.db --root {folder}/anchor"""
    )


def stay_up(farm: Farm) -> None:
    """Until SIGINT or SIGTERM; a process that ends by itself ends the farm with an error."""
    while not signal.sigtimedwait({signal.SIGINT, signal.SIGTERM}, 1.0):
        farm.processes.check()


def main() -> int:
    """Run the steps; the exit code."""
    arguments = parse_arguments()
    say = arguments.output == "table"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Farm(arguments.dir, engine=arguments.engine) as farm:
            if say:
                print(f"A fabric in {farm.folder}")
            steps = prove(farm, say)
            report = report_of(farm, steps)
            if not say:
                print(json.dumps(report), flush=True)
            if (report["ok"] and not arguments.once) or (not report["ok"] and arguments.keep):
                # Before anything is said: whoever reads that Ctrl-C stops the farm may press it at once.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
                if report["ok"] and say:
                    print_addresses(farm)
                stay_up(farm)
            return EXIT_OK if report["ok"] else EXIT_FAILED
    except SetupError as error:
        print(f"ops/up: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ProcessError as error:
        print(f"ops/up: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
