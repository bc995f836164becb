"""A streamed response that gives back what it holds, however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """A StreamingResponse whose pieces are closed at its end.

    Starlette leaves a generator suspended when the client goes while a piece is sent, or before the first:
    its `finally` would run when it is collected as garbage, or never.

    Args:
        pieces: of the body.
        release: called at the end in any case, also where the first piece was never asked for.
        media_type, headers: of the response.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[str, None],
        release: Callable[[], None],
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()
            await self._pieces.aclose()
