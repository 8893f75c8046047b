"""The client library: what a gateway imports to have parts inspected, to read records and to command a service.

from edge_runtime.clients import Gateway

with Gateway("tcp://127.0.0.1:5550", name="plc-1") as gateway:
    answer = gateway.inspect(camera="top", part_id="A17", deadline_ms=500)
    gate.open() if answer.accepted else gate.reject()
"""

from edge_runtime.clients.aio import AsyncGateway, AsyncRecordStream
from edge_runtime.clients.control import Control, ServiceError
from edge_runtime.clients.gateway import Gateway, Pending
from edge_runtime.clients.records import RecordStream
from edge_runtime.clients.results import Inspected

__all__ = [
    "AsyncGateway",
    "AsyncRecordStream",
    "Control",
    "Gateway",
    "Inspected",
    "Pending",
    "RecordStream",
    "ServiceError",
]
