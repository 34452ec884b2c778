"""Plain signs for what the encoding of a terminal or file lacks."""

import codecs
import io
import sys
import unicodedata

__all__ = ["SIGNS", "write_everywhere"]

SIGNS = dict(zip("·•–—−×●○←→≤≥⁄Δ", "**---x*o<><>/D", strict=True)) | {"±": "+-"}
"""What stands for signs that an encoding lacks: mostly one, which keeps tables even."""


def write_everywhere() -> None:
    """Let standard output and errors write what their encoding lacks in plain signs."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for a sign that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign, end = error.object[error.start], error.start + 1
    if "\udc80" <= sign <= "\udcff":  # a byte of a file's name
        return bytes([ord(sign) - 0xDC00]), end
    parts = unicodedata.normalize("NFKD", sign)
    text = "".join(SIGNS.get(c, c) for c in parts if not unicodedata.combining(c))
    if not text.isascii():
        words = unicodedata.name(text[0], "").lower().split()
        text = words[-1] if "greek" in words else "?"
    return text, end
