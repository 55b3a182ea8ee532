"""qlog files on request: one for each connection, in the form that the engine itself writes.

Both libraries have a trace of one interface (draft-ietf-quic-qlog-main-schema); this keeps it bounded: the
newest events of a connection, and the newest connections of a process. A connection that is traced takes the
library's own way through its packets, which is slower.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from pathlib import Path
from typing import Any

from fabric import limits

_log = logging.getLogger(__name__)


class QlogFolder:
    """What an engine's configuration calls its `quic_logger`. `trace_type` is the library's trace."""

    def __init__(self, folder: Path, trace_type: type[Any]) -> None:
        self._folder = folder
        self._trace_type = trace_type
        self._written: deque[Path] = deque()

    def start_trace(self, is_client: bool, odcid: bytes) -> Any:
        """A trace for a connection that begins."""
        trace = self._trace_type(is_client=is_client, odcid=odcid)
        trace._events = deque(trace._events, maxlen=limits.QLOG_EVENTS)  # noqa: SLF001 - it has no bound itself
        return trace

    def end_trace(self, trace: Any) -> None:
        """The connection has ended: write its file, and remove the oldest beyond the bound."""
        body = trace.to_dict()
        side = body["vantage_point"]["type"]
        path = self._folder / f"{body['common_fields']['ODCID']}-{side}.qlog"
        document = {"qlog_format": "JSON", "qlog_version": "0.3", "traces": [body]}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))
            self._written.append(path)
            while len(self._written) > limits.QLOG_FILES:
                self._written.popleft().unlink(missing_ok=True)
        except OSError as error:
            _log.warning("no qlog of a connection: %s", error)
