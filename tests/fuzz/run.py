"""Coverage-guided fuzzing of one target, or of all by turns, with atheris (libFuzzer).

    python -m tests.fuzz.run record -max_total_time=3600 FOLDER    goes on for an hour, keeps inputs in FOLDER
    python -m tests.fuzz.run all -runs=2000

Options are libFuzzer's. An input that breaks a target is written as `crash-…`; run the target on that file
alone to see it again, and put the bug's input into the corpus.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["statelog", "fabric"]):
    from tests.fuzz.corpus import FOLDER
    from tests.fuzz.targets import TARGETS, run


def main() -> None:
    """Take the target's name from the command line; the rest is libFuzzer's."""
    name, *options = sys.argv[1:] or ["?"]
    if name not in (*TARGETS, "all"):
        sys.exit(f"usage: python -m tests.fuzz.run {'|'.join((*TARGETS, 'all'))} [libFuzzer options]")
    names = list(TARGETS)

    def one(data: bytes) -> None:
        if name == "all":
            if data:
                run(names[data[0] % len(names)], data[1:])
        else:
            run(name, data)

    seeds = [] if name == "all" else [str(FOLDER / name)]
    kept = [option for option in options if not option.startswith("-")]
    flags = [option for option in options if option.startswith("-")]
    atheris.Setup([sys.argv[0], *flags, *kept, *seeds], one)  # libFuzzer writes what it finds into the first
    atheris.Fuzz()


if __name__ == "__main__":
    main()
