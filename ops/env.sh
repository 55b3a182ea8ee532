# Makes .venv from the hash-locked file when it is missing or stale. Sourced by ops/up, ops/test and ops/bench.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$here"
stamp=".venv/.locked"
wanted="$(cat ops/requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)"
if [ ! -x .venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  python="${PYTHON:-python3}"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "ops: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
    exit 2
  }
  echo "ops: making .venv (once)" >&2
  "$python" -m venv .venv >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r ops/requirements.lock >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
  echo "$wanted" > "$stamp"
fi
