"""The running service: settings in; an HTTP application, or sessions for the command line, out.

`Service` starts the workers and load control, and holds `Sessions`, `Publications` (WebRTC) and `Pushes`
(captions pushed outward). `Session` wires ingest, speech, vision, answers and the event log of one stream;
`Dispatcher` is the one place where each unit goes. `app` and the *_routes modules are the HTTP API; compat/
speaks other people's protocols.
"""

from streamsvc.service.service import Service
from streamsvc.service.session import Session

__all__ = ["Service", "Session"]
