"""The beginning of a PNG of 900 megapixels: as far as Pillow reads before it refuses."""

import struct
import zlib

_HEAD = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + _HEAD + struct.pack(">II4s", zlib.crc32(_HEAD), 9, b"IDAT")
