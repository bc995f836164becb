"""Other people's protocols over our sessions and events: OpenAI Realtime transcription, Deepgram, and plain PCM.

Sits above the session, like the service and the server: `doors.router(service)` is all that the server needs.
"""
