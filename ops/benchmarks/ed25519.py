"""The limit of any audit: Ed25519 verifications a second by libsodium, doing nothing else, on every core."""

from __future__ import annotations

import multiprocessing
import os
import time
from hashlib import sha256

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

_ROUND = 200  # verifications between two looks at the clock


def rate_on_one_core(seconds: float, message_bytes: int) -> float:
    """Verifications a second in this process, of one signature of a message of that length."""
    public, secret = crypto_sign_seed_keypair(sha256(b"the measured limit").digest())
    signed = crypto_sign(os.urandom(message_bytes), secret)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(_ROUND):
            crypto_sign_open(signed, public)
        done += _ROUND
    return done / (time.perf_counter() - start)


def rate_on_all_cores(seconds: float, message_bytes: int, cores: int) -> float:
    """The sum over one process a core, all started before the first of them measures."""
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        pool.starmap(rate_on_one_core, [(0.01, message_bytes)] * cores, chunksize=1)
        return sum(pool.starmap(rate_on_one_core, [(seconds, message_bytes)] * cores, chunksize=1))
