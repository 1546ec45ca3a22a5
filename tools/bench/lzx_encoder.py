"""A simple LZX compressor: what the benchmarks and tests need to have cabinets of every window and block kind.

Greedy matching against the last place of the same three bytes; it compresses less well than Microsoft's and takes its
time, but writes all that a decoder must read: verbatim, aligned and uncompressed blocks of any length across frames,
repeated offsets, the E8 translation. Frames are 32 KiB; no match crosses the border of a frame or block.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

FRAME = 32768
MAX_MATCH = 257
MIN_MATCH = 3
POSITION_SLOTS = {15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}
EXTRA_BITS = [0, 0, 0, 0, *(min(slot // 2 - 1, 17) for slot in range(4, 50))]
BASES = [0, *itertools.accumulate(1 << extra for extra in EXTRA_BITS)][:50]
E8_TAIL = 10


class Kind(IntEnum):
    """The block types."""

    VERBATIM = 1
    ALIGNED = 2
    UNCOMPRESSED = 3


def encode_lzx(
    data: bytes, window_bits: int, blocks: Iterable[tuple[Kind, int]] = (), e8_size: int = 0
) -> list[tuple[bytes, int]]:
    """The frames of a folder, as (packed data, decoded size) each.

    `blocks` gives kind and length of the first blocks; the rest goes into verbatim blocks of 64 KiB. A file size in
    `e8_size` turns the translation of x86 calls on.
    """
    return list(_Encoder(data, window_bits, e8_size).frames(blocks))


class _Encoder:
    def __init__(self, data: bytes, window_bits: int, e8_size: int) -> None:
        self._data = translate_calls(data, e8_size) if e8_size else data
        self._window = (1 << window_bits) - 3
        self._slots = POSITION_SLOTS[window_bits]
        self._e8_size = e8_size
        self._repeats = [1, 1, 1]
        self._main_lengths = [0] * (256 + 8 * self._slots)
        self._length_lengths = [0] * 249
        self._last: dict[bytes, int] = {}

    def frames(self, blocks: Iterable[tuple[Kind, int]]) -> Iterator[tuple[bytes, int]]:
        bits = _Bits()
        bits.put(1 if self._e8_size else 0, 1)
        if self._e8_size:
            bits.put(self._e8_size >> 16, 16)
            bits.put(self._e8_size & 0xFFFF, 16)
        plan = itertools.chain(blocks, itertools.repeat((Kind.VERBATIM, 2 * FRAME)))
        size = len(self._data)
        position, started = 0, 0
        while position < size:
            kind, length = next(plan)
            length = min(length, size - position)
            for end in self._write_block(bits, kind, position, position + length):
                if end % FRAME == 0 or end == size:
                    yield bits.take(), end - started
                    started = end
            position += length

    def _write_block(self, bits: _Bits, kind: Kind, start: int, end: int) -> Iterator[int]:
        """Write a block; yields where it has come to after each stretch that stays within one frame."""
        borders = [start, *range((start // FRAME + 1) * FRAME, end, FRAME), end]
        stretches = list(itertools.pairwise(borders))
        bits.put(kind, 3)
        bits.put(end - start >> 8, 16)
        bits.put(end - start & 0xFF, 8)
        if kind is Kind.UNCOMPRESSED:
            bits.align(always=True)
            bits.raw(struct.pack("<3I", *self._repeats))
            for number, (first, last) in enumerate(stretches, 1):
                bits.raw(self._data[first:last])
                if number == len(stretches) and (end - start) % 2:
                    bits.raw(b"\0")
                yield last
            return
        tokens = [list(self._tokens(first, last)) for first, last in stretches]
        if kind is Kind.ALIGNED:
            used = Counter(offset & 7 for token in itertools.chain(*tokens) for offset in token[3:4])
            aligned = code_lengths([used[symbol] + 1 for symbol in range(8)], 7)
            for length in aligned:
                bits.put(length, 3)
            aligned_codes = codes(aligned)
        main = Counter(token[0] for token in itertools.chain(*tokens))
        lengths = Counter(token[1] for token in itertools.chain(*tokens) if token[1] >= 0)
        main_lengths = code_lengths([main[symbol] for symbol in range(len(self._main_lengths))], 16)
        length_lengths = code_lengths([lengths[symbol] for symbol in range(249)], 16) if lengths else [0] * 249
        _write_lengths(bits, self._main_lengths[:256], main_lengths[:256])
        _write_lengths(bits, self._main_lengths[256:], main_lengths[256:])
        _write_lengths(bits, self._length_lengths, length_lengths)
        self._main_lengths, self._length_lengths = main_lengths, length_lengths
        main_codes, length_codes = codes(main_lengths), codes(length_lengths)
        for (_first, last), stretch in zip(stretches, tokens, strict=True):
            for symbol, length, extra, footer in stretch:
                bits.put(*main_codes[symbol])
                if length >= 0:
                    bits.put(*length_codes[length])
                if kind is Kind.ALIGNED and extra >= 3:
                    bits.put(footer >> 3, extra - 3)
                    bits.put(*aligned_codes[footer & 7])
                else:
                    bits.put(footer, extra)
            yield last

    def _tokens(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(main symbol, length symbol or -1, extra bits, their value) of one stretch."""
        data, last = self._data, self._last
        position = start
        while position < end:
            length, offset = self._match(position, end)
            if length < MIN_MATCH:
                last[data[position : position + 3]] = position
                yield data[position], -1, 0, 0
                position += 1
                continue
            repeats = self._repeats
            if offset in repeats:
                slot = repeats.index(offset)
                repeats[0], repeats[slot] = offset, repeats[0]
                extra, footer = 0, 0
            else:
                slot = _slot(offset + 2)
                extra, footer = EXTRA_BITS[slot], offset + 2 - BASES[slot]
                repeats[:] = [offset, *repeats[:2]]
            header = min(length - 2, 7)
            yield 256 + slot * 8 + header, length - 9 if header == 7 else -1, extra, footer
            for step in range(0, length, 1 if length < 16 else 4):
                last[data[position + step : position + step + 3]] = position + step
            position += length

    def _match(self, position: int, end: int) -> tuple[int, int]:
        data = self._data
        limit = min(MAX_MATCH, end - position)
        best = (0, 0)
        found = self._last.get(data[position : position + 3])
        candidates = self._repeats if found is None else [*self._repeats, position - found]
        for offset in candidates:
            if offset > position or offset > self._window:
                continue
            length = 0
            while length < limit and data[position + length] == data[position - offset + length]:
                length += 1
            if length > best[0]:
                best = length, offset
        return best


class _Bits:
    """Bits into 16-bit little-endian words, the first one on top."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._value = 0
        self._count = 0

    def put(self, value: int, count: int) -> None:
        self._value = self._value << count | value
        self._count += count
        while self._count >= 16:
            self._count -= 16
            self._done += struct.pack("<H", self._value >> self._count & 0xFFFF)
        self._value &= (1 << self._count) - 1

    def align(self, *, always: bool = False) -> None:
        if self._count or always:
            self.put(0, 16 - self._count)

    def raw(self, data: bytes) -> None:
        self._done += data

    def take(self) -> bytes:
        self.align()
        done = bytes(self._done)
        self._done.clear()
        return done


def _slot(formatted: int) -> int:
    return next(slot for slot in range(3, 50) if formatted < BASES[slot] + (1 << EXTRA_BITS[slot]))


def code_lengths(counts: Sequence[int], longest: int) -> list[int]:
    """Lengths of a complete Huffman code for the symbols with a count, none longer than `longest`."""
    used = [symbol for symbol, count in enumerate(counts) if count]
    # A complete code has two symbols at least.
    used += [symbol for symbol in (0, 1, 2) if symbol not in used][: max(2 - len(used), 0)]
    weights = {symbol: max(counts[symbol], 1) for symbol in used}
    while True:
        heap = [(weight, symbol, [symbol]) for symbol, weight in weights.items()]
        heapq.heapify(heap)
        lengths = [0] * len(counts)
        while len(heap) > 1:
            one, two = heapq.heappop(heap), heapq.heappop(heap)
            for symbol in one[2] + two[2]:
                lengths[symbol] += 1
            heapq.heappush(heap, (one[0] + two[0], one[1], one[2] + two[2]))
        if max(lengths) <= longest:
            return lengths
        weights = {symbol: (weight + 1) // 2 for symbol, weight in weights.items()}


def codes(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """The canonical code: (value, length) by symbol."""
    result = [(0, 0)] * len(lengths)
    value = 0
    for length in range(1, max(lengths, default=0) + 1):
        for symbol, each in enumerate(lengths):
            if each == length:
                result[symbol] = value, length
                value += 1
        value <<= 1
    return result


def _write_lengths(bits: _Bits, before: Sequence[int], after: Sequence[int]) -> None:
    """Code lengths as differences from the last tree, runs of zeros and of equal lengths shortened."""
    symbols: list[tuple[int, int, int]] = []
    position = 0
    for value, group in itertools.groupby(after):
        run = len(list(group))
        while run:
            if value == 0 and run >= 20:
                count = min(run, 51)
                symbols.append((18, count - 20, 5))
            elif value == 0 and run >= 4:
                count = min(run, 19)
                symbols.append((17, count - 4, 4))
            elif run >= 4:
                count = min(run, 5)
                symbols += [(19, count - 4, 1), ((before[position] - value) % 17, 0, 0)]
            else:
                count = 1
                symbols.append(((before[position] - value) % 17, 0, 0))
            run -= count
            position += count
    used = Counter(symbol for symbol, _value, _count in symbols)
    lengths = code_lengths([used[symbol] for symbol in range(20)], 15)
    for length in lengths:
        bits.put(length, 4)
    table = codes(lengths)
    for symbol, value, count in symbols:
        bits.put(*table[symbol])
        bits.put(value, count)


def translate_calls(data: bytes, file_size: int) -> bytes:
    """The E8 translation as a compressor does it: relative targets of x86 calls become absolute."""
    result = bytearray(data)
    for start in range(0, len(data), FRAME):
        end = min(start + FRAME, len(data))
        at = data.find(0xE8, start, max(end - E8_TAIL, start)) if end - start > E8_TAIL else -1
        while at >= 0:
            (target,) = struct.unpack_from("<i", data, at + 1)
            if -at <= target < file_size - at:
                struct.pack_into("<i", result, at + 1, target + at)
            elif file_size - at <= target < file_size:
                struct.pack_into("<i", result, at + 1, target - file_size)
            at = data.find(0xE8, at + 5, end - E8_TAIL)
    return bytes(result)
