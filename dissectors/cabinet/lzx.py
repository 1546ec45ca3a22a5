"""LZX as cabinets use it: the reference decoder, in plain Python.

The stream is a chain of 16-bit little-endian words, their bits taken from the top. One data block holds one frame of
32 KiB of output and starts on a word; LZX blocks (verbatim, aligned, uncompressed) may span frames, and so may a match.
Before the first block stand one bit and, if it is set, the 32-bit file size for the translation of x86 calls (E8).
Where the published description and real cabinets differ (position slots of the large windows, the order of the aligned
tree, the length field of uncompressed blocks), formats.md section 1 is followed: what libmspack does.

How it gets its speed: no bit buffer at all. All 32-bit big-endian words at every 16-bit step of a frame are unpacked at
once, so the next 17 bits at any bit position are one index, one shift and one mask away. Trees become flat tables of
(code length, symbol) pairs as wide as their longest code. The window is the tail of the output itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from dissectors.cabinet.blocks import PackedBlock
from dissectors.cabinet.limits import BLOCK_OUTPUT
from dissectors.cabinet.structures import DATA_FIXED
from dissectors.errors import DissectError

VERBATIM, ALIGNED, UNCOMPRESSED = 1, 2, 3
POSITION_SLOTS = {15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}
LITERALS = 256
LENGTH_SYMBOLS = 249
PRETREE_SYMBOLS = 20
ALIGNED_SYMBOLS = 8
SECONDARY = 9
"""The match length (2 + 7) that says: more follows in the length tree."""

E8_FRAMES = 32768
E8_TAIL = 10
"""Calls this near to the end of a frame are left alone."""

Table: TypeAlias = "tuple[list[tuple[int, int]], int, int]"
"""Entries by the next bits, the shift that brings those bits down from 32, and their mask."""
NO_TABLE: Table = ([], 0, 0)


def _match_table() -> list[tuple[int, int, int]]:
    """Per main symbol from 256 on: match length (9: see SECONDARY), offset base, extra bits.

    The base is the smallest offset of the slot; slots 0 to 2, the repeated offsets, have 0, -1 and -2 instead.
    """
    entries = []
    base = 0
    for slot in range(50):
        extra = 0 if slot < 4 else min((slot - 2) // 2, 17)
        entries += [(2 + header, base - 2 if slot > 2 else -slot, extra) for header in range(8)]
        base += 1 << extra
    return entries


_MATCHES = _match_table()
_MASKS = [(1 << bits) - 1 for bits in range(18)]


class _Corrupt(Exception):
    """What is wrong with a frame; becomes a DissectError where the place is known."""


def decode_lzx(blocks: Iterable[PackedBlock], window_bits: int) -> Iterator[bytes]:
    """One chunk per data block. Raises DissectError; never makes more than the blocks declare."""
    decoder = LzxDecoder(window_bits)
    short: int | None = None
    for offset, data, size in blocks:
        if short is not None:
            raise DissectError(short + 6, f"{BLOCK_OUTPUT} bytes out of every LZX block but the last", "less")
        if size < BLOCK_OUTPUT:
            short = offset
        try:
            chunk = decoder.decode_frame(data, size)
        except IndexError:
            raise DissectError(offset + DATA_FIXED, f"an LZX frame of {size} bytes", "the end of its data") from None
        except _Corrupt as reason:
            raise DissectError(offset + DATA_FIXED, f"an LZX frame of {size} bytes", str(reason)) from None
        yield chunk


class LzxDecoder:
    """The state that lives from frame to frame of one folder."""

    def __init__(self, window_bits: int) -> None:
        self._window = 1 << window_bits
        self._output = bytearray()
        self._produced = 0  # bytes of all frames so far
        self._surplus = 0  # bytes of the next frame that a match has already made
        self._frames = 0
        self._repeats = (1, 1, 1)
        self._block = 0
        self._left = 0  # output still to come from the block
        self._odd = False  # an uncompressed block of odd length leaves a pad byte
        self._e8_size: int | None = None
        self._main_lengths = [0] * (LITERALS + 8 * POSITION_SLOTS[window_bits])
        self._length_lengths = [0] * LENGTH_SYMBOLS
        self._main = self._length = self._aligned = NO_TABLE
        self._words: list[int] = []

    def decode_frame(self, data: bytes, size: int) -> bytes:
        """`size` bytes out of the data of one CFDATA. Raises _Corrupt, or IndexError when the data ends early."""
        output = self._output
        if len(output) > 2 * self._window + BLOCK_OUTPUT:
            del output[: len(output) - self._window - self._surplus]
        self._words = unpack_words(data)
        start = len(output) - self._surplus
        end = start + size
        bit = 0
        if self._e8_size is None:
            bit = self._read_e8_size()
        while len(output) < end:
            if not self._left:
                if self._odd:
                    self._odd = False
                    bit += 8
                if self._block == UNCOMPRESSED and bit & 15:
                    # An odd stretch of raw bytes: words are counted from where it ends.
                    data, bit = data[1:], bit - 8
                    self._words = unpack_words(data)
                bit = self._read_block_header(bit, data)
            before = len(output)
            stop = min(end, before + self._left)
            bit = self._copy(data, bit, stop) if self._block == UNCOMPRESSED else self._decode_matches(bit, stop)
            self._left -= len(output) - before
            if self._left < 0:
                raise _Corrupt("a match over the end of its block")
        if bit > 8 * (len(data) + 1 & ~1):
            raise IndexError
        if self._odd and not self._left and bit < 8 * len(data):
            self._odd = False
        self._surplus = len(output) - end
        frame = bytes(memoryview(output)[start:end])
        if self._e8_size and self._frames < E8_FRAMES and size > E8_TAIL:
            frame = untranslate_calls(frame, self._produced, self._e8_size)
        self._frames += 1
        self._produced += size
        return frame

    def _bits(self, bit: int, count: int) -> int:
        return self._words[bit >> 4] >> (32 - count - (bit & 15)) & _MASKS[count]

    def _read_e8_size(self) -> int:
        if not self._bits(0, 1):
            self._e8_size = 0
            return 1
        size = self._bits(1, 16) << 16 | self._bits(17, 16)
        self._e8_size = size - (size >> 31 << 32)  # signed, as the calls are
        return 33

    def _read_block_header(self, bit: int, data: bytes) -> int:
        block = self._bits(bit, 3)
        self._left = self._bits(bit + 3, 16) << 8 | self._bits(bit + 19, 8)
        self._block = block
        bit += 27
        if block == UNCOMPRESSED:
            # One to sixteen bits of padding, so a whole word when already on its border.
            byte = (bit // 16 + 1) * 2
            if byte + 12 > len(data):
                raise IndexError
            self._repeats = struct.unpack_from("<3I", data, byte)
            self._odd = self._left % 2 == 1
            return 8 * (byte + 12)
        if block == ALIGNED:
            lengths = [self._bits(bit + 3 * symbol, 3) for symbol in range(ALIGNED_SYMBOLS)]
            self._aligned = build_table(lengths, "aligned")
            bit += 3 * ALIGNED_SYMBOLS
        elif block == VERBATIM:
            self._aligned = NO_TABLE
        else:
            raise _Corrupt(f"LZX block type {block}")
        bit = self._read_lengths(bit, self._main_lengths, 0, LITERALS)
        bit = self._read_lengths(bit, self._main_lengths, LITERALS, len(self._main_lengths))
        self._main = build_table(self._main_lengths, "main")
        bit = self._read_lengths(bit, self._length_lengths, 0, LENGTH_SYMBOLS)
        # No match longer than eight bytes: the length tree may be empty.
        self._length = build_table(self._length_lengths, "length") if any(self._length_lengths) else NO_TABLE
        return bit

    def _read_lengths(self, bit: int, lengths: list[int], first: int, last: int) -> int:
        pretree = [self._bits(bit + 4 * symbol, 4) for symbol in range(PRETREE_SYMBOLS)]
        bit += 4 * PRETREE_SYMBOLS
        entries, shift, mask = build_table(pretree, "pre")
        words = self._words
        position = first
        while position < last:
            used, symbol = entries[words[bit >> 4] >> (shift - (bit & 15)) & mask]
            bit += used
            if symbol < 17:
                lengths[position] = (lengths[position] - symbol) % 17
                position += 1
                continue
            if symbol == 17:
                run, value = self._bits(bit, 4) + 4, 0
                bit += 4
            elif symbol == 18:
                run, value = self._bits(bit, 5) + 20, 0
                bit += 5
            else:
                run = self._bits(bit, 1) + 4
                bit += 1
                used, symbol = entries[words[bit >> 4] >> (shift - (bit & 15)) & mask]
                bit += used
                if symbol > 16:
                    raise _Corrupt("a run of runs in a pretree")
                value = (lengths[position] - symbol) % 17
            if position + run > last:
                raise _Corrupt("code lengths beyond their tree")
            lengths[position : position + run] = [value] * run
            position += run
        return bit

    def _copy(self, data: bytes, bit: int, stop: int) -> int:
        count = stop - len(self._output)
        byte = bit >> 3
        if byte + count > len(data):
            raise IndexError
        self._output += data[byte : byte + count]
        return bit + 8 * count

    def _decode_matches(self, bit: int, stop: int) -> int:
        words, output, matches, masks = self._words, self._output, _MATCHES, _MASKS
        append = output.append
        entries, shift, mask = self._main
        length_entries, length_shift, length_mask = self._length
        aligned_entries, aligned_shift, aligned_mask = self._aligned
        window = self._window
        r0, r1, r2 = self._repeats
        position = len(output)
        while position < stop:
            used, symbol = entries[words[bit >> 4] >> (shift - (bit & 15)) & mask]
            bit += used
            if symbol < 256:
                append(symbol)
                position += 1
                continue
            length, offset, extra = matches[symbol - 256]
            if length == 9:
                used, symbol = length_entries[words[bit >> 4] >> (length_shift - (bit & 15)) & length_mask]
                bit += used
                length += symbol
            if offset > 0:
                if extra > 2 and aligned_entries:
                    # All but the lowest three bits are plain, those come from the aligned tree.
                    extra -= 3
                    offset += (words[bit >> 4] >> (32 - extra - (bit & 15)) & masks[extra]) << 3
                    bit += extra
                    used, symbol = aligned_entries[words[bit >> 4] >> (aligned_shift - (bit & 15)) & aligned_mask]
                    bit += used
                    offset += symbol
                elif extra:
                    offset += words[bit >> 4] >> (32 - extra - (bit & 15)) & masks[extra]
                    bit += extra
                r2 = r1
                r1 = r0
                r0 = offset
            elif offset:
                if offset == -1:
                    offset = r1
                    r1 = r0
                else:
                    offset = r2
                    r2 = r0
                r0 = offset
            else:
                offset = r0
            source = position - offset
            if source < 0 or not 0 < offset <= window:
                raise _Corrupt("a match before the first byte")
            if length <= offset:
                output += output[source : source + length]
            else:
                output += (output[source:] * (length // offset + 1))[:length]
            position += length
        self._repeats = (r0, r1, r2)
        return bit


def unpack_words(data: bytes) -> list[int]:
    """At index i the 32 bits from byte 2*i on, in the order the decoder takes them; the end is padded with zeros."""
    count = (len(data) + 1) // 2
    swapped = bytearray(2 * count + 8)
    swapped[0 : 2 * count : 2] = data[1::2] + bytes(len(data) % 2)
    swapped[1 : 2 * count : 2] = data[0::2]
    words = [0] * (count + 2)
    even = (count + 3) // 2
    words[0::2] = struct.unpack_from(f">{even}I", swapped)
    words[1::2] = struct.unpack_from(f">{(count + 2) // 2}I", swapped, 2)
    return words


def build_table(lengths: list[int], name: str) -> Table:
    """The decoding table of a canonical Huffman code; raises _Corrupt when the code is not complete."""
    longest = max(lengths)
    by_length: list[list[int]] = [[] for _ in range(longest + 1)]
    for symbol, length in enumerate(lengths):
        by_length[length].append(symbol)
    entries: list[tuple[int, int]] = []
    room = 1 << longest
    for length in range(1, longest + 1):
        copies = 1 << (longest - length)
        if len(entries) + copies * len(by_length[length]) > room:
            raise _Corrupt(f"an impossible {name} tree")
        for symbol in by_length[length]:
            entries += [(length, symbol)] * copies
    if not longest or len(entries) != room:
        raise _Corrupt(f"an incomplete {name} tree")
    return entries, 32 - longest, room - 1


def untranslate_calls(frame: bytes, position: int, file_size: int) -> bytes:
    """Undo the E8 translation: the absolute targets of x86 calls become relative again. `position` is the frame's."""
    end = len(frame) - E8_TAIL
    at = frame.find(0xE8, 0, end)
    if at < 0:
        return frame
    calls = bytearray(frame)
    while at >= 0:
        here = position + at
        (target,) = struct.unpack_from("<i", calls, at + 1)
        if -here <= target < file_size:
            target += -here if target >= 0 else file_size
            struct.pack_into("<I", calls, at + 1, target & 0xFFFFFFFF)
        at = frame.find(0xE8, at + 5, end)
    return bytes(calls)
