"""Typed JSON: what annotations accept, how values are written and read back, and how a call is told from another."""

from agentq.codec.arguments import Arguments, digest, result_codec
from agentq.codec.typed import MAX_PAYLOAD_BYTES, Codec, codec_for
from agentq.failure import failure_from

__all__ = ["MAX_PAYLOAD_BYTES", "Arguments", "Codec", "codec_for", "digest", "failure_from", "result_codec"]
