"""Other people's protocols: their official clients publish audio and get transcripts.

- `/v1/realtime?intent=transcription` (WebSocket): OpenAI's Realtime transcription, by the types of its Python
  client (openai/types/realtime, 3.57) and its guide to realtime transcription. Modules `openai_realtime`,
  `openai_session`.
- `/v1/listen` (WebSocket): Deepgram's live transcription, by the types of its Python client
  (deepgram/listen/v1, 7.17) and its API reference. Modules `deepgram_live`, `deepgram_messages`,
  `deepgram_options`.
- `POST /v1/listen`: Deepgram's prerecorded transcription, by the same documents. Modules `deepgram_file`,
  `audio_file`.
- `/v1/sessions/{id}/audio` (WebSocket): our own; PCM as binary messages or as OpenAI's append events. Module
  `routes`.

In: samples or a media file. Out: messages translated from the events of a session. The docstring of each
protocol states where it differs from the original. `routes.router` is the public name.
"""
