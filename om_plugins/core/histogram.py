"""A log-linear histogram: quantiles with a fixed relative error, merged by addition.

Each power of two is cut into 32 buckets of equal width (the scheme of HdrHistogram and of
OpenTelemetry's exponential histograms, made linear inside an octave so that a bucket is found
without a logarithm). A value is given as the middle of its bucket, so it is off by at most 1/64 of
itself (:data:`RELATIVE_ERROR`). Only buckets that were hit take memory.
"""

from __future__ import annotations

import math

RELATIVE_ERROR = 1 / 64
"""How far a quantile may be from the recorded value, as a share of it."""

_PER_OCTAVE = 32
_LOWEST_EXPONENT = -20
_HIGHEST_EXPONENT = 17
LOWEST = 2.0**_LOWEST_EXPONENT
"""About 1 µs: what is smaller is counted as this."""
HIGHEST = math.nextafter(2.0**_HIGHEST_EXPONENT, 0.0)
"""About 36 hours: what is larger is counted as this."""
BUCKETS = (_HIGHEST_EXPONENT - _LOWEST_EXPONENT) * _PER_OCTAVE
"""How many buckets there are: the bound of a histogram's memory."""

_OFFSET = (_LOWEST_EXPONENT + 1) * _PER_OCTAVE + _PER_OCTAVE
_MOST = 2**53


def bucket_of(value: float) -> int:
    """The number of the bucket for ``value``; whatever is not a number goes into the first."""
    if not value > LOWEST:
        return 0
    mantissa, exponent = math.frexp(min(HIGHEST, value))
    return exponent * _PER_OCTAVE + int(mantissa * (2 * _PER_OCTAVE)) - _OFFSET


def middle_of(bucket: int) -> float:
    """The value that stands for a bucket."""
    octave, part = divmod(bucket, _PER_OCTAVE)
    return math.ldexp(1.0 + (part + 0.5) / _PER_OCTAVE, octave + _LOWEST_EXPONENT)


class Histogram:
    """Counts of values such as durations in seconds.

    Attributes:
        counts: how often each bucket was hit.
        count: how many values were recorded.
        total: their sum.
    """

    __slots__ = ("count", "counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.total = 0.0

    def record(self, value: float) -> None:
        """Count one value. Not for several threads at once."""
        self.put(bucket_of(value), value)

    def put(self, bucket: int, value: float) -> None:
        """Count one value whose bucket is known already."""
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.count += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Count everything that ``other`` counted, too."""
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least ``share`` of the records do not exceed.

        Args:
            share: 0 to 1; 0.95 for the 95th percentile (nearest rank).

        Returns:
            The middle of its bucket, or ``None`` when nothing was recorded.
        """
        return self.quantiles(share)[0]

    def quantiles(self, *shares: float) -> list[float | None]:
        """Several quantiles in one pass; ``shares`` must grow."""
        if not self.count:
            return [None for _ in shares]
        results: list[float | None] = []
        wanted = (max(1, math.ceil(share * self.count)) for share in shares)
        rank = next(wanted, 0)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            while rank and seen >= rank:
                results.append(middle_of(bucket))
                rank = next(wanted, 0)
        return results

    def above(self, limit: float) -> int:
        """How many records are larger than ``limit``, to the precision of a bucket."""
        edge = bucket_of(limit)
        return sum(count for bucket, count in self.counts.items() if bucket > edge)

    @property
    def mean(self) -> float | None:
        """The average; ``None`` when nothing was recorded."""
        return self.total / self.count if self.count else None

    def encode(self) -> bytes:
        """A few bytes per bucket that was hit: varints of the sum in µs, then step and count."""
        out = bytearray()
        _write(out, min(_MOST, max(0, round(self.total * 1e6))) if self.total < 1e9 else _MOST)
        last = 0
        for bucket in sorted(self.counts):
            _write(out, bucket - last)
            _write(out, self.counts[bucket])
            last = bucket
        return bytes(out)

    @classmethod
    def decode(cls, encoded: bytes) -> Histogram:
        """Read what :meth:`encode` wrote.

        Raises:
            ValueError: it is damaged, or was never one.
        """
        numbers = _read(encoded)
        made = cls()
        if not numbers:
            return made
        if len(numbers) % 2 == 0:
            raise ValueError("not a histogram: a bucket without a count")
        made.total = numbers[0] / 1e6
        counts = made.counts
        bucket = 0
        for step, count in zip(numbers[1::2], numbers[2::2], strict=True):
            bucket += step
            if not count or bucket >= BUCKETS or (counts and not step):
                raise ValueError("not a histogram: its buckets are wrong")
            counts[bucket] = count
        made.count = sum(counts.values())
        return made


def _write(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _read(encoded: bytes) -> list[int]:
    if len(encoded) > 10 * (2 * BUCKETS + 1):
        raise ValueError("not a histogram: too long")
    numbers = []
    number = shift = 0
    for byte in encoded:
        if byte < 0x80 and not shift:
            numbers.append(byte)
            continue
        number |= (byte & 0x7F) << shift
        if number > _MOST:
            raise ValueError("not a histogram: a number is too large")
        if byte & 0x80:
            shift += 7
        else:
            numbers.append(number)
            number = shift = 0
    if shift:
        raise ValueError("not a histogram: it ends in the middle")
    return numbers
