"""The embedder: a child process that turns texts into vectors with ONNX Runtime, in the OpenAI dialect.

Stations of a call: `server` and `request` (bytes to texts), `splitter` (texts to ids), `line` (whose turn it
is), `desk` (runs the line on one thread), `encoder` (ids to vectors), `reply` (vectors to bytes).
"""
