"""The claim of one session, and its place in the lists."""

from __future__ import annotations

import pytest

from streamsvc.cluster.holding import Holding
from streamsvc.cluster.shared_log import Fenced
from tests.builders.cluster import FACTS, SESSION, node_of
from tests.builders.redis_server import RedisServer


async def test_a_claim_is_made_once_and_given_back(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node, node_of(redis_server, "two") as two:
        holding = Holding(SESSION, node.registry, node.log, None)
        await holding.release()  # there is nothing yet
        claim = await holding.claimed()
        assert await holding.claimed() is claim
        with pytest.raises(Fenced):
            await Holding(SESSION, two.registry, two.log, None).claimed()
        await holding.release()
        assert (await Holding(SESSION, two.registry, two.log, None).claimed()).owner.node == "two"


async def test_a_place_in_the_lists_is_renewed_after_a_while_and_when_redis_has_lost_it(
    redis_server: RedisServer,
) -> None:
    async with node_of(redis_server) as node:
        holding = Holding(SESSION, node.registry, node.log, None)
        listed = [holding.listed]
        await holding.enter(FACTS)
        listed.append(holding.listed)
        assert await node.log.broadcasts("lecture") == [SESSION]
        assert await node.log.recent(9, before_ms=1796119200001) == [
            SESSION
        ]  # FACTS' start and a millisecond
        assert await node.log.recent(9, before_ms=1796119200000) == []
        holding.forgotten()
        listed.append(holding.listed)
        await holding.enter(FACTS | {"name": ""})
        node.registry.keep_ms = 0
        listed.append(holding.listed)
        assert listed == [False, True, False, False]


async def test_a_claim_whose_reply_came_too_late_is_ours(redis_server: RedisServer) -> None:
    async with node_of(redis_server) as node:
        made = await node.registry.claim(SESSION)  # and nobody has heard of it
        claim = await Holding(SESSION, node.registry, node.log, None).claimed()
        assert claim == made
