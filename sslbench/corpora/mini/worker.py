"""The synthesizer's own process: text in, 16-bit samples and phone times out.

eSpeak NG is GPL-3.0-or-later, so this file is run as a program of its own and nothing imports it: the
library never enters an sslbench process. The library carries state from one call to the next, so one
process makes exactly one list of utterances, in order, after seeding: equal requests give equal bytes.

stdin: `{"seed", "variant", "utterances": [{"text", "pitch", "range", "rate_wpm"}]}` as JSON.
stdout: one JSON line `{"engine", "sample_rate_hz", "utterances": [{"samples", "phones"}]}`, with phones as
`[first sample, mnemonic]`; then all samples as little-endian int16.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# constants of espeak-ng/speak_lib.h
OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 0x0001
INITIALIZE_DONT_EXIT = 0x8000
EVENT_LIST_END, EVENT_PHONEME = 0, 7
RATE, VOLUME, PITCH, RANGE, WORD_GAP = 1, 2, 3, 4, 7
POSITION_CHARACTER = 1
CHARS_UTF8 = 1
ENDPAUSE = 0x1000

ENGLISH_DATA = ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw/en-US")


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The parts of libespeak-ng that the corpus needs."""

    def __init__(self, library: str, data: str) -> None:
        self._lib = ctypes.CDLL(library)
        flags = INITIALIZE_PHONEME_EVENTS | INITIALIZE_DONT_EXIT
        self.sample_rate_hz = self._lib.espeak_Initialize(OUTPUT_SYNCHRONOUS, 0, data.encode(), flags)
        if self.sample_rate_hz <= 0:
            raise RuntimeError(f"espeak_Initialize failed with data in {data}")
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self._callback = _Callback(self._receive)  # must outlive the synthesis calls
        self._lib.espeak_SetSynthCallback(self._callback)
        self._chunks: list[bytes] = []
        self._phones: list[tuple[int, str]] = []

    @property
    def version(self) -> str:
        """As the library says it."""
        return str(self._lib.espeak_Info(None).decode())

    def seed(self, seed: int) -> None:
        """Seed the noise source (eSpeak NG 1.52 seeds from the clock otherwise)."""
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))

    def voice(self, name: str) -> None:
        """Choose a voice, `language+variant`."""
        if status := self._lib.espeak_SetVoiceByName(name.encode()):
            raise RuntimeError(f"espeak_SetVoiceByName({name!r}) gave {status}")

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != EVENT_LIST_END:
            event = events[index]
            if event.type == EVENT_PHONEME:
                self._phones.append((event.sample, event.id.string.decode("utf-8", "replace")))
            index += 1
        return 0

    def say(self, text: str, pitch: int, range_: int, rate_wpm: int) -> tuple[bytes, list[tuple[int, str]]]:
        """Speak one text; returns its samples and `(first sample, mnemonic)` of every phone."""
        for parameter, value in (
            (PITCH, pitch),
            (RANGE, range_),
            (RATE, rate_wpm),
            (VOLUME, 80),
            (WORD_GAP, 0),
        ):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._phones = [], []
        data = text.encode() + b"\0"
        status = self._lib.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, POSITION_CHARACTER, 0, CHARS_UTF8 | ENDPAUSE, None, None
        )
        if status:
            raise RuntimeError(f"espeak_Synth gave {status} for {text!r}")
        self._lib.espeak_Synchronize()
        return b"".join(self._chunks), self._phones


@contextmanager
def _data_folder(source: Path, variant: str) -> Iterator[str]:
    """English data (links) plus one voice variant, so that loading takes milliseconds."""
    with tempfile.TemporaryDirectory(prefix="sslbench-espeak-") as temporary:
        folder = Path(temporary) / "espeak-ng-data"
        (folder / "voices" / "!v").mkdir(parents=True)
        (folder / "lang" / "gmw").mkdir(parents=True)
        for name in ENGLISH_DATA:
            os.symlink(source / name, folder / name)
        (folder / "voices" / "!v" / "speaker").write_text(variant, encoding="utf-8")
        yield str(folder)


def main() -> None:
    """Serve one request."""
    import espeakng_loader

    request = json.load(sys.stdin)
    with _data_folder(Path(espeakng_loader.get_data_path()), request["variant"]) as data:
        engine = Espeak(espeakng_loader.get_library_path(), data)
        engine.seed(request["seed"])
        engine.voice("en-us+speaker")
        spoken = [engine.say(u["text"], u["pitch"], u["range"], u["rate_wpm"]) for u in request["utterances"]]
    header = {
        "engine": f"eSpeak NG {engine.version}",
        "sample_rate_hz": engine.sample_rate_hz,
        "utterances": [{"samples": len(pcm) // 2, "phones": phones} for pcm, phones in spoken],
    }
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(pcm for pcm, _ in spoken))


if __name__ == "__main__":
    main()
