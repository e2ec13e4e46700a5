"""A mock OpenAI server: clients are tested and measured against it without an engine.

`python -m bros_sglang.mock_server --help`, or `MockServer` inside an event loop. It answers chat completions
and completions at tens of microseconds each, and on request it fails, stalls, throttles, cuts the connection
or returns broken JSON.
"""

from bros_sglang.mock_server.faults import Fault, FaultPlan
from bros_sglang.mock_server.server import MockServer, MockSettings

__all__ = ["Fault", "FaultPlan", "MockServer", "MockSettings"]
