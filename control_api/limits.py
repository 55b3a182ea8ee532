"""Every bound of the control API, with its reason. Seconds, bytes and counts; the unit is in the name."""

from __future__ import annotations

from typing import Final

# --- settings ---

MAX_SETTINGS_BYTES: Final = 256 * 1024  # of its settings, of a token; a page or two with every comment

# --- requests ---

MAX_BODY_BYTES: Final = 64 * 1024  # a record is at most 60,000 bytes; counted while it is read
BODY_TIMEOUT_S: Final = 10.0  # 64 KiB arrive by then on any usable line; slower ones hold memory

# --- submitting ---

DEFAULT_WAIT_S: Final = 10.0  # finality takes a second among witnesses that are up
MAX_WAIT_S: Final = 30.0  # proxies between cut idle answers at a minute
MAX_WAITING_RECORDS: Final = 1_024  # records read and not yet handed to the store; 64 MiB at most
RECHECK_S: Final = 2.0  # a ring of the doorbell may be lost; only while somebody waits
RETRY_AFTER_S: Final = 1  # what a busy replica asks for

# --- reading ---

READ_THREADS: Final = 8  # more only wait for the interpreter; below the pool of database connections
DEFAULT_PAGE_ROWS: Final = 50  # what a person looks at
MAX_PAGE_ROWS: Final = 200  # 60,000 bytes a record at worst: 12 MB
MAX_SCANNED_ENTRIES: Final = 2_000  # looking for one kind, before the page ends with a link to the next
TILE_MAX_AGE_S: Final = 365 * 86_400  # final tiles never change
