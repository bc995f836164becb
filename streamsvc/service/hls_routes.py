"""Routes of captions in players: HLS playlists with WebVTT segments, alone and beside somebody's video.

A player cannot send a header, so everything below .../hls may be asked for with one signature, which
playlists hand on to what they name; that of master.m3u8 holds for one video.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from streamsvc.core.config import LANGUAGES
from streamsvc.core.errors import InvalidRequest, NotFound
from streamsvc.core.types import Grants
from streamsvc.events import hls_captions, hls_master
from streamsvc.events.hls_master import Rendition
from streamsvc.service import hls_tracks
from streamsvc.service.auth import SIGNED, WHOLE
from streamsvc.service.hls_tracks import HlsTracks, Placement
from streamsvc.service.hls_video import Videos, align
from streamsvc.service.rights import require
from streamsvc.service.service import Service
from streamsvc.service.session import Session

PLAYLIST = "application/vnd.apple.mpegurl"
LIFETIME = 24 * 3600.0  # seconds that a signed address is valid: a player keeps it for a whole broadcast
_LIVE = {"Cache-Control": "max-age=2"}  # a third of a segment
_WHOLE = {"Cache-Control": "max-age=60"}
_SETTLED = {"Cache-Control": "max-age=86400, immutable"}
_VIDEO = r"^https?://[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]{1,2048}$"  # of one line, without quotes
_DAY = 86_400.0


class Played(BaseModel):
    """Query of a playlist of captions and its segments. All but `lang` is as master.m3u8 says."""

    lang: str | None = Field(
        None, max_length=16, description="spoken in this language or translated into it; none: as spoken"
    )
    mpegts: int | None = Field(None, ge=0, lt=hls_captions.WRAP, description="the video's, at second 0")
    offset: float = Field(0.0, ge=-_DAY, le=_DAY, allow_inf_nan=False)
    first: float = Field(0.0, ge=-_DAY, le=7 * _DAY, allow_inf_nan=False, description="the video's second 0")
    discontinuity: int = Field(0, ge=0, lt=1 << 31)

    def language(self) -> str | None:
        """The code of the language, without its country. Raises InvalidRequest: there is none."""
        if self.lang is None:
            return None
        code = self.lang.split("-")[0].lower()
        if code not in LANGUAGES:
            raise InvalidRequest(
                f'{self.lang!r} is no language that is known here; they are named as in "en"',
                code="unknown_language",
            )
        return code


class NewPlayer(BaseModel):
    """Body of POST /v1/sessions/{id}/hls."""

    model_config = ConfigDict(extra="forbid")

    video: str | None = Field(
        None, pattern=_VIDEO, description="http(s) address of an HLS playlist that captions are added to"
    )
    offset: float | None = Field(
        None, ge=-_DAY, le=_DAY, allow_inf_nan=False, description="seconds by which captions are shown later"
    )


class PlayerAddresses(BaseModel):
    """What a player loads without a token, for a day, and at most as long as the token that asked."""

    captions_url: str
    master_url: str | None = Field(description="the video with captions; null: no video was named")


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/sessions/{session_id}/hls", tags=["sessions"])
    tracks = HlsTracks()
    videos = Videos(service.settings)

    @routes.post("", status_code=201, response_model=PlayerAddresses)
    async def addresses(session_id: str, body: NewPlayer, request: Request) -> PlayerAddresses:
        """Addresses for a player, signed where the server has a key. With a video `publish` is needed too."""
        grants = service.auth.of(request.scope)
        session = await service.sessions.open(session_id)
        base = f"/v1/sessions/{session.id}/hls"
        captions = service.auth.sign(f"{base}/captions.m3u8", LIFETIME, grants)
        if body.video is None:
            return PlayerAddresses(captions_url=captions, master_url=None)
        require(grants, "publish")
        named = {"video": body.video} | ({} if body.offset is None else {"offset": f"{body.offset:.3f}"})
        path = f"/v1/sessions/{session.id}{WHOLE}?{urlencode(named)}"
        return PlayerAddresses(captions_url=captions, master_url=service.auth.sign(path, LIFETIME, grants))

    @routes.get("/captions.m3u8", response_class=Response, responses=_content(PLAYLIST))
    async def captions(request: Request, session_id: str, query: Annotated[Played, Query()]) -> Response:
        """Captions as an HLS playlist of WebVTT segments: the newest two minutes; of an ended session all.

        Where another publisher took over there is an EXT-X-DISCONTINUITY, unless it is beside a video.
        """
        session = await service.sessions.open(session_id)
        language = query.language()
        placement = Placement(query.mpegts, query.offset, query.first, query.discontinuity)
        handed_on = {
            name: value
            for name, value in request.query_params.items()
            if name in ("lang", "mpegts", "first", "exp", "by", "sig")
        }
        more = f"?{urlencode(handed_on)}" if handed_on else ""
        text = tracks.playlist(
            session, language, placement, lambda name: f"{session.log.epoch}/{name}.vtt{more}"
        )
        headers = _WHOLE if tracks.is_recorded(session) else _LIVE
        return Response(text, media_type=PLAYLIST, headers=headers)

    @routes.get("/{epoch}/{form}/{number}.vtt", response_class=Response, responses=_content("text/vtt"))
    async def segment(
        session_id: str,
        epoch: str,
        form: Literal["live", "recorded"],
        number: Annotated[int, Path(ge=0, lt=1 << 31)],
        query: Annotated[Played, Query()],
    ) -> Response:
        """A WebVTT segment, which never changes.

        404: it is not settled, or has left the playlist. `epoch`: of the session's events; `form`: as the
        playlist names it.
        """
        session = await service.sessions.open(session_id)
        language = query.language()
        if form == "live":
            body = tracks.live_segment(session, language, number)
        else:
            body = tracks.recorded_segment(session, language, number, query.first)
        if body is None or epoch != session.log.epoch:
            raise NotFound("There is no such segment (any more)", code="no_segment")
        return Response(
            hls_captions.segment(body, query.mpegts or 0), media_type="text/vtt", headers=_SETTLED
        )

    @routes.get("/master.m3u8", response_class=Response, responses=_content(PLAYLIST))
    async def master(
        request: Request,
        session_id: str,
        video: Annotated[str, Query(pattern=_VIDEO, description="http(s) address of an HLS playlist")],
        offset: Annotated[
            float | None,
            Query(ge=-_DAY, le=_DAY, allow_inf_nan=False, description="seconds; captions are shown later"),
        ] = None,
    ) -> Response:
        """Somebody's HLS video with our captions: one rendition as spoken, and one a translation.

        Its EXT-X-PROGRAM-DATE-TIME tells when it was; a recording without it begins with the session, and a
        live video without it (422 `no_date`) is taken for now, where `offset` is given. The address is asked
        by our own client, under the policy of sources: unless it is signed, `publish` is needed.
        """
        grants = service.auth.of(request.scope)
        if grants.tenant != SIGNED:
            require(grants, "publish")
        session = await service.sessions.open(session_id)
        found = await videos.read(video)
        alignment = align(found, session.clock.zero_utc, session.clock.position(), offset)
        # Of the broadcast, whatever name it was asked by: the next one has captions of its own.
        base = f"/v1/sessions/{session.id}/hls/captions.m3u8"
        placed = {"mpegts": str(alignment.mpegts), "discontinuity": str(found.anchor.discontinuity)}
        placed |= {"offset": f"{offset:.3f}"} if offset else {}
        placed |= {"first": f"{alignment.first:.3f}"} if found.ended else {}
        renditions = [
            Rendition(name, code, _signed(service, base, placed | lang, grants), not lang)
            for name, code, lang in _renditions(session)
        ]
        if found.master:
            text = hls_master.added(found.text, renditions)
        else:
            text = hls_master.of_one(video, renditions)
        return Response(text, media_type=PLAYLIST, headers=_LIVE)

    return routes


def _content(kind: str) -> dict[int | str, dict[str, object]]:
    """What a route answers with, for OpenAPI."""
    return {200: {"content": {kind: {"schema": {"type": "string"}}}}}


def _signed(service: Service, path: str, query: dict[str, str], grants: Grants) -> str:
    """The address of captions, for whoever may see the playlist that names it."""
    return service.auth.sign(f"{path}?{urlencode(query)}", LIFETIME, grants)


def _renditions(session: Session) -> list[tuple[str, str, dict[str, str]]]:
    """Name, language and query of each rendition: the captions as spoken first, then the translations."""
    spoken, translated = hls_tracks.languages(session)
    names: list[tuple[str, str, dict[str, str]]] = [("Captions", spoken, {})]
    return names + [(f"Captions ({code})", code, {"lang": code}) for code in translated if code != spoken]
