"""TFRecord files of ``tf.Example`` messages, plain or gzipped as a whole, without TensorFlow.

A record is: uint64 length, uint32 masked CRC-32C of the length, the bytes, uint32 masked CRC-32C of the bytes; all
little-endian. An Example maps names to lists of bytes, of floats or of integers (protocol buffers, wire types 0, 2, 5).
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lumos.errors import DataError
from lumos.workloads.common.compressed import cannot_read, unpacked
from lumos.workloads.common.native import compiled

GZIP = b"\x1f\x8b"


def _crc_table() -> np.ndarray:
    """256 entries of the reflected Castagnoli polynomial, and those of the seven bytes before (slicing by 8)."""
    table = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table[0, byte] = value
    for row in range(1, 8):
        table[row] = (table[row - 1] >> np.uint32(8)) ^ table[0, table[row - 1] & np.uint32(0xFF)]
    return table


TABLE = _crc_table()


@compiled
def _crc32c(data, table):  # pragma: no cover - compiled
    crc = np.uint32(0xFFFFFFFF)
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        low = crc ^ (
            np.uint32(data[i])
            | np.uint32(data[i + 1]) << np.uint32(8)
            | np.uint32(data[i + 2]) << np.uint32(16)
            | np.uint32(data[i + 3]) << np.uint32(24)
        )
        crc = (
            table[7, low & np.uint32(0xFF)]
            ^ table[6, (low >> np.uint32(8)) & np.uint32(0xFF)]
            ^ table[5, (low >> np.uint32(16)) & np.uint32(0xFF)]
            ^ table[4, low >> np.uint32(24)]
            ^ table[3, data[i + 4]]
            ^ table[2, data[i + 5]]
            ^ table[1, data[i + 6]]
            ^ table[0, data[i + 7]]
        )
    for i in range(whole, len(data)):
        crc = (crc >> np.uint32(8)) ^ table[0, (crc ^ np.uint32(data[i])) & np.uint32(0xFF)]
    return crc ^ np.uint32(0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Compute CRC-32C (Castagnoli) of the bytes."""
    return int(_crc32c(np.frombuffer(data, np.uint8), TABLE))


def masked_crc(data: bytes) -> int:
    """Compute the CRC-32C as TFRecord stores it: rotated right by 15 bits, plus 0xa282ead8."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(file: Path) -> Iterator[bytes]:
    """Read the records of a file in order; whether it is gzipped is seen from its first bytes.

    Raises:
        DataError: the file is cut short or damaged; the message names file and record.
    """
    try:
        data = file.read_bytes()
        # The length of a plain record may begin with gzip's two bytes; its checksum says that it is one.
        if data[:2] == GZIP and not (len(data) >= 12 and masked_crc(data[:8]) == int.from_bytes(data[8:12], "little")):
            data = unpacked(file)
    except OSError as error:
        raise cannot_read(file, error) from error
    at = number = 0
    while at < len(data):
        where = f"{file}: record {number}"
        if len(data) - at < 16:
            raise DataError(f"{where}: cut short after {len(data) - at} bytes; fetch or generate it again")
        length, length_crc = struct.unpack_from("<QI", data, at)
        if masked_crc(data[at : at + 8]) != length_crc:
            raise DataError(f"{where}: the checksum of its length is wrong; is it a TFRecord file?")
        end = at + 12 + length
        if end + 4 > len(data):
            raise DataError(
                f"{where}: cut short, {len(data) - at - 12} bytes of {length + 4}; fetch or generate it again"
            )
        record = data[at + 12 : end]
        if masked_crc(record) != int.from_bytes(data[end : end + 4], "little"):
            raise DataError(f"{where}: its checksum is wrong; fetch or generate it again")
        yield record
        at, number = end + 4, number + 1


def write_record(file: Path, record: bytes, *, compressed: bool) -> None:
    """Write a file with one record, gzipped as a whole or plain."""
    length = struct.pack("<Q", len(record))
    data = b"".join([length, struct.pack("<I", masked_crc(length)), record, struct.pack("<I", masked_crc(record))])
    # No time stamp: equal records make equal files.
    file.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if compressed else data)


def read_example(record: bytes) -> dict[str, bytes | np.ndarray]:
    """Read the features of a ``tf.Example`` by name: bytes, or an array of float32 or int64.

    Of a list of several byte strings, the first is kept.

    Raises:
        ValueError: the record is not such a message.
    """
    features: dict[str, bytes | np.ndarray] = {}
    for message in _messages(record):
        for entry in _messages(message):
            parts = dict(_fields(entry))
            if set(parts) != {1, 2}:
                raise ValueError("an entry that is not a name and a feature")
            for kind, values in _fields(_as_bytes(parts[2])):
                features[_as_bytes(parts[1]).decode()] = _values(kind, _as_bytes(values))
    return features


def write_example(features: Mapping[str, bytes | np.ndarray]) -> bytes:
    """Write the ``tf.Example`` message of features by name: bytes, or float32 values."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = _field(1, _field(1, value))
        else:
            feature = _field(2, _field(1, np.asarray(value, "<f4").tobytes()))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def _values(kind: int, message: bytes) -> bytes | np.ndarray:
    values = [value for number, value in _fields(message) if number == 1]
    if kind == 1:
        return _as_bytes(values[0]) if values else b""
    if kind == 2:  # packed into one string, or one by one
        return np.frombuffer(b"".join(_as_bytes(value) for value in values), "<f4")
    numbers: list[int] = []
    for value in values:
        numbers += [value] if isinstance(value, int) else _varints(value)
    return np.array(numbers, np.uint64).astype(np.int64)


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _messages(message: bytes) -> Iterator[bytes]:
    return (_as_bytes(value) for number, value in _fields(message) if number == 1)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and values of a message's fields: integers as such, all else as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = (4, at) if wire == 5 else _varint(message, at) if wire == 2 else (-1, at)
        if not 0 <= size <= len(message) - at:
            raise ValueError(f"byte {at}: wire type {wire}, or a field longer than the message")
        yield number, message[at : at + size]
        at += size


def _varints(message: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(message):
        number, at = _varint(message, at)
        numbers.append(number)
    return numbers


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError(f"byte {at}: a number that does not end")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _field(number: int, value: bytes) -> bytes:
    size, rest = b"", len(value)
    while rest > 0x7F:
        size, rest = size + bytes([rest & 0x7F | 0x80]), rest >> 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + value
