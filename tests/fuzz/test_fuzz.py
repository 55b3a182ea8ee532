"""The fuzz targets on their corpus, on seeded mutations of it, and shortly under the fuzzer itself."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.corpus import FOLDER, corpus
from tests.fuzz.targets import TARGETS, run

SEED = 20260103
MUTATIONS = 60  # of each input
REFUSED = {"duplicate-keys", "lone-surrogate", "not-a-number", "deep"}
PIECES = (b"\0", b"\n", b"\xff", b"9" * 30, b"\xed\xa0\x80", b'"', b"e400")
ROOT = Path(__file__).resolve().parents[2]


def test_every_target_has_its_corpus_in_the_tree() -> None:
    """The files are seeds and may be of an older format; what is made now is tried beside them."""
    kept = {target.name: {path.name for path in target.iterdir()} for target in FOLDER.iterdir()}
    assert kept.keys() == corpus().keys() == TARGETS.keys()
    assert all(kept[target] >= set(inputs) for target, inputs in corpus().items())


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_valid_is_accepted_and_the_rest_refused(target: str) -> None:
    for name, data in corpus()[target].items():
        refused = name in REFUSED or name == "extra" or name.startswith("refused ")
        assert run(target, data) is not refused, name


@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_and_its_mutations_do_no_harm(target: str) -> None:
    """Bits, cuts, copies and splices, from a seed: no exception but a refusal, and one spelling a value."""
    chance, outcomes = random.Random(f"{SEED} {target}"), Counter[bool]()
    inputs = [path.read_bytes() for path in sorted((FOLDER / target).iterdir())]
    for data in inputs:
        run(target, data)
        for _ in range(MUTATIONS):
            outcomes[run(target, mutated(data, inputs, chance))] += 1
    assert outcomes[False] > MUTATIONS, outcomes


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at : at + chance.randrange(1, 40)]
            case 2:
                found[at:at] = found[at : at + chance.randrange(1, 40)]
            case 3:
                found[at:at] = chance.choice(
                    (b"\0", b"\n", b"\xff", b"9" * 30, b"\xed\xa0\x80", b'"', b"e400")
                )
            case 4:
                del found[at:]
            case _:
                found[at:] = chance.choice(others)[at:]
    return bytes(found)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed here")
def test_the_fuzzer_runs(tmp_path: Path) -> None:
    """Briefly: that the harness works and a few thousand guided inputs find nothing."""
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, target in enumerate(TARGETS):
        for path in (FOLDER / target).iterdir():
            (seeds / f"{target}-{path.name}").write_bytes(bytes([number]) + path.read_bytes())
    command = [sys.executable, "-m", "tests.fuzz.run", "all", "-runs=1500", f"-seed={SEED}", str(seeds)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Done 1500 runs" in ran.stderr
    shutil.rmtree(seeds)
