"""What a service does as a node: messages of its event sockets go to the owners of their sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.core.errors import ClusterUnavailable, StreamsvcError
from streamsvc.core.types import Grants
from tests.builders.cluster import until
from tests.builders.fake_service import Peer
from tests.builders.nodes import node, published, silent_node
from tests.builders.redis_server import RedisServer

ALL = Grants("local", "*", frozenset({"publish", "subscribe", "ask"}), None, "local")
PING = '{"type": "watch.add", "when": "a cat appears"}'


async def test_a_message_goes_to_the_owner_or_is_handled_here_or_says_why_not(
    redis_server: RedisServer, tmp_path: Path, peers: list[Peer]
) -> None:
    async with node(redis_server, tmp_path, "one") as one, silent_node(redis_server, tmp_path, "two") as two:
        session = await published(one)
        followed = await two.session("talk")
        assert await one.part.relay(session.id, PING, ALL, "me") is None, "it lives here"
        replies = await two.part.relay(followed.id, PING, ALL, "me")
        assert replies is not None and [kind for kind, _ in replies] == ["watch.added"]
        with pytest.raises(StreamsvcError) as wrong:
            await two.part.relay(followed.id, '{"type": "watch.add"}', ALL, "me")
        assert wrong.value.code == "bad_watch"
        one.cut_off()
        await until(lambda: "one" not in two.part.node.nodes)
        with pytest.raises(ClusterUnavailable) as gone:
            await two.part.relay(followed.id, PING, ALL, "me")
        assert gone.value.code == "session_stalled"
