"""Encoded audio packets to PCM16, by FFmpeg's decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from nemotron_voice.errors import AudioDecodeError

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

    from nemotron_voice.protocol import ListenOptions

_CODECS = {"mulaw": "pcm_mulaw", "alaw": "pcm_alaw", "opus": "opus"}


class PacketDecoder:
    """One stream's decoder. A packet is a binary message: any length of G.711, one of Opus."""

    def __init__(self, options: ListenOptions) -> None:
        self._encoding = options.encoding
        self._codec: AudioCodecContext | None = None
        if options.encoding in _CODECS:
            from av import AudioResampler, Packet  # noqa: PLC0415 - takes 0.1 s to load
            from av.codec import CodecContext  # noqa: PLC0415

            self._packet = Packet
            self._codec = cast(
                "AudioCodecContext", CodecContext.create(_CODECS[options.encoding], "r")
            )
            self._codec.sample_rate = options.sample_rate
            self._codec.layout = "mono"
            self._to_pcm16 = AudioResampler("s16", "mono", options.sample_rate)

    def decode(self, data: bytes) -> bytes:
        """PCM16 of a packet, at the stream's sample rate.

        Raises:
            AudioDecodeError: the packet isn't of the encoding.
        """
        if self._codec is None:
            return data
        import av  # noqa: PLC0415

        try:
            frames = self._codec.decode(self._packet(data))
            parts = [out for frame in frames for out in self._to_pcm16.resample(frame)]
        except (av.FFmpegError, ValueError) as error:
            raise AudioDecodeError(
                f"a packet of {len(data)} bytes is no {self._encoding}: {error}"
            ) from error
        return b"".join(np.ascontiguousarray(part.to_ndarray()[0]).tobytes() for part in parts)
