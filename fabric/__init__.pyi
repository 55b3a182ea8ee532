from fabric.classes import Mode as Mode
from fabric.classes import TrafficClass as TrafficClass
from fabric.errors import FabricError as FabricError
from fabric.errors import StreamError as StreamError
from fabric.identity import NodeIdentity as NodeIdentity
from fabric.io.api import Session as Session
from fabric.io.api import connect as connect
from fabric.io.api import serve as serve
from fabric.io.connection import Connection as Connection
from fabric.io.endpoint import Endpoint as Endpoint
from fabric.io.streams import Stream as Stream

__all__ = [
    "Connection",
    "Endpoint",
    "FabricError",
    "Mode",
    "NodeIdentity",
    "Session",
    "Stream",
    "StreamError",
    "TrafficClass",
    "connect",
    "serve",
]
