"""Follow a session and ask it: `python deploy/subscribe.py http://127.0.0.1:8080 SESSION QUESTION`."""

import asyncio
import contextlib
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

TYPES = "caption.final,scene.caption,answer.*,session.closed"


async def follow(service: str, session: str, question: str) -> None:
    """Print captions, scenes and the answer until the answer is complete or the session ends."""
    address = f"{service.replace('http', 'ws', 1)}/v1/sessions/{session}/events?types={TYPES}"
    key = os.environ.get("STREAMSVC_SERVER__API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with connect(address, additional_headers=headers) as socket:
        with contextlib.suppress(ConnectionClosed):  # it says why, below
            await socket.send(json.dumps({"type": "question.ask", "text": question}))
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "error":  # a wrong session, token or question
                sys.exit(event["error"]["message"])
            if "text" in event:
                print(f"{event['at']:7.1f} {event['type']}: {event['text']}", flush=True)
            if event["type"] in ("answer.done", "session.closed"):
                break


if __name__ == "__main__":
    try:
        asyncio.run(follow(*sys.argv[1:4]))
    except (OSError, WebSocketException) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
