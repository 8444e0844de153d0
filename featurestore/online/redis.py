"""The online store in Redis or Valkey, one server or a cluster.

Names, with ``bb`` one of 256 buckets (the CRC-32 of the canonical key, in hex)::

    {ns:<group number>:bb}:<canonical key>   string: the held record (``online.codec``)
    {ns:<group number>:bb}!keys              sorted set, all scores 0: the canonical keys of the bucket
    {ns:<group number>}!position             string: the last position applied

The braces are the hash tag: a bucket lives on one server of a cluster, the buckets of a group on all of them. The
bucket's sorted set is what lets a scan be paged by key and finish exactly once under writes; it is written only when
a key is new, so updates do not pay for it.

Redis never expires a record by itself: a header that vanished would let an older write in again (readers check expiry
instead). Ranks are compared as Lua numbers, exact below 2**53; event times are compared exactly over all 64 bits.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Iterator, Sequence
from typing import Final
from zlib import crc32

from featurestore.groups import FeatureGroup
from featurestore.online import Abilities
from featurestore.online.coalesce import Coalescer
from featurestore.online.codec import pack, pack_row, unpack
from featurestore.records import HARD, ONLINE, Row, Stored
from foundation.errors import InvalidInput
from foundation.redis import TIMEOUT, Argument, Command, Connection, Script, connect

__all__ = ["RedisStore", "open_store"]

BUCKETS: Final = 256
_CALL: Final = 100
"""Keys per script call: the server serves others between calls."""
_CHUNK: Final = 20_000
"""Rows folded and sent together."""
_MANY: Final = 8 * BUCKETS
"""From so many keys on, a single server too is called bucket by bucket: its memory is touched in better order."""
_READ: Final = 1_000
"""Keys per MGET."""
_LOOK_AHEAD: Final = (1, 1, 4, 16, 64, BUCKETS)
"""How many buckets a scan asks at a time, while the page is not full."""

# The rule of records.merge, one row per key given, in order. A record's bytes are described in online.codec.
_MERGE = Script(
    """
local byte, sub, find, unpack8 = string.byte, string.sub, string.find, struct.unpack
local HAS_BARRIER = string.char(0, 0, 0, 1)

local function is_hard(v) return byte(v, 2) % 4 >= 2 end
local function with_barrier(v, barrier)
  return sub(v, 1, 4) .. HAS_BARRIER .. sub(v, 9, 40) .. barrier .. sub(v, byte(v, 8) == 1 and 49 or 41)
end
local function number(sequence) return struct.pack('>i8', sequence) end

local changed = 0
for i = 1, #KEYS do
  local key, new = KEYS[i], ARGV[i]
  local held = redis.call('GETRANGE', key, 0, 47)
  local high, low, rank = unpack8('>i4I4i8', new, 9)
  local sequence, hard = math.abs(rank), is_hard(new)
  local write
  if held == '' then
    write = hard and with_barrier(new, number(sequence)) or new
    local tag = find(key, '}', 1, true)
    redis.call('ZADD', sub(key, 1, tag) .. '!keys', 0, sub(key, tag + 2))
  else
    if byte(held, 1) ~= 177 or #held < 40 then
      return redis.error_reply('FORMAT a record under ' .. sub(key, 1, find(key, '}', 1, true))
        .. ' was not written by this store')
    end
    local held_high, held_low, held_rank = unpack8('>i4I4i8', held, 9)
    local barrier, raw = 0, nil
    if byte(held, 8) == 1 then
      raw = sub(held, 41, 48)
      barrier = unpack8('>i8', raw)
    end
    if hard then
      if sequence > barrier then
        write = new
        if math.abs(held_rank) > sequence then write = redis.call('GET', key) end
        write = with_barrier(write, number(sequence))
      end
    elseif sequence >= barrier then
      if is_hard(held) or high > held_high or (high == held_high and
          (low > held_low or (low == held_low and rank > held_rank))) then
        write = raw and with_barrier(new, raw) or new
      end
    end
  end
  if write then
    redis.call('SET', key, write)
    changed = changed + 1
  end
end
return changed
"""
)

_REMEMBER = Script(
    """
local held = redis.call('GET', KEYS[1])
if not held or tonumber(held) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""
)

_REPLACE = Script(
    """
local tag = string.find(KEYS[1], '}', 1, true)
local keys, key = string.sub(KEYS[1], 1, tag) .. '!keys', string.sub(KEYS[1], tag + 2)
if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('ZADD', keys, 0, key)
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', keys, key)
end
return 1
"""
)

# Forgets up to ARGV[1] records of a bucket; answers how many it found.
_FORGET = Script(
    """
local tag = string.sub(KEYS[1], 1, (string.find(KEYS[1], '}', 1, true)))
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
for _, key in ipairs(found) do redis.call('UNLINK', tag .. ':' .. key) end
if #found > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #found - 1) end
return #found
"""
)


class RedisStore:
    """The OnlineStore of a namespace on a Redis or Valkey server or cluster. Safe to use from several threads."""

    abilities = Abilities(concurrent_reads=True)

    def __init__(self, url: str, namespace: str, *, timeout: float = TIMEOUT) -> None:
        """Connect; nothing is written.

        Args:
            url: as for ``foundation.redis.connect``; clusters are recognised.
            namespace: 1 to 64 letters, digits, ``_``, ``-`` or ``.``; keeps workspaces apart on one server.
            timeout: seconds until a silent server counts as not answering.

        Raises:
            InvalidInput: an url or a namespace of another form.
            Unavailable, AccessDenied, Conflict: as for ``connect``; Conflict also refuses an evicting server.
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", namespace):
            raise InvalidInput(
                f"namespace {namespace!r} is not allowed",
                subject="online store namespace",
                hint="use 1 to 64 letters, digits, '_', '-' or '.'",
            )
        self._namespace = namespace
        self._connection: Connection = connect(url, timeout=timeout)
        self._tags: dict[int, list[bytes]] = {}
        self._loaders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer[bytes, bytes | None]]
        self._loaders = weakref.WeakKeyDictionary()

    def apply(self, group: FeatureGroup, rows: Sequence[Row], position: int | None = None) -> None:
        """Merge rows, given in log order; then remember ``position``, unless a higher one is remembered.

        Raises:
            Unavailable, LimitExceeded, AccessDenied: some rows may have been applied, the position was not.
            Conflict: a record that this store did not write stands in the way.
            InvalidInput: values that cannot be stored.
        """
        for start in range(0, len(rows), _CHUNK):
            chains = _chains(rows[start : start + _CHUNK])
            self._connection.run(_MERGE, self._calls(group, chains))
        if position is not None:
            self._connection.run(_REMEMBER, [((self._position_key(group),), (position,))])

    def _calls(
        self, group: FeatureGroup, chains: dict[bytes, list[Row]]
    ) -> Iterator[tuple[list[Argument], list[Argument]]]:
        """Script calls over these rows: all rows of a key in one call, all keys of a call in one hash slot."""
        tags = self._tags_of(group)
        lanes: dict[int, tuple[list[Argument], list[Argument]]] = {}
        bucketed = self._connection.cluster or len(chains) > _MANY
        for key, chain in chains.items():
            bucket = crc32(key) & 255
            lane = bucket if bucketed else 0
            call = lanes.get(lane)
            if call is None:
                call = lanes[lane] = ([], [])
            elif len(call[0]) >= _CALL:
                yield call
                call = lanes[lane] = ([], [])
            name = tags[bucket] + b":" + key
            for row in chain:
                call[0].append(name)
                call[1].append(pack_row(row))
        yield from lanes.values()

    def position(self, group: FeatureGroup) -> int:
        """The last position remembered, 0 for none.

        Raises:
            Unavailable: as for ``apply``.
        """
        held = self._connection.ask("GET", self._position_key(group))
        return int(held or 0)

    def get_many(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """What is held for each canonical key, in order; a key may be named twice.

        Raises:
            Unavailable: as for ``apply``.
            Conflict: the bytes held cannot be read.
        """
        tags = self._tags_of(group)
        if len(keys) == 1:
            key = keys[0]
            data = self._connection.ask("GET", tags[crc32(key) & 255] + b":" + key)
            return [None if data is None else unpack(data)]
        names = [tags[crc32(key) & 255] + b":" + key for key in keys]
        return [None if data is None else unpack(data) for data in self._values(names)]

    async def get_many_async(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """As ``get_many``; the look-ups of one event-loop tick, whoever makes them, go out as one MGET.

        Raises:
            Unavailable, Conflict: as for ``get_many``.
        """
        tags = self._tags_of(group)
        names = [tags[crc32(key) & 255] + b":" + key for key in keys]
        loop = asyncio.get_running_loop()
        loader = self._loaders.get(loop)
        if loader is None:
            loader = self._loaders[loop] = Coalescer(self._connection.values, limit=_READ)
        return [None if data is None else unpack(data) for data in await loader.load(names)]

    def scan(self, group: FeatureGroup, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, Stored]]:
        """Up to ``limit`` (canonical key, held) pairs after ``after``, in the order of (bucket, key).

        Raises:
            Unavailable, Conflict: as for ``get_many``.
        """
        tags = self._tags_of(group)
        page: list[tuple[bytes, Stored]] = []
        bucket = crc32(after) & 255 if after else 0
        step = 0
        while len(page) < limit and bucket < BUCKETS:
            room = limit - len(page)
            ahead = range(bucket, min(BUCKETS, bucket + _LOOK_AHEAD[min(step, len(_LOOK_AHEAD) - 1)]))
            found = self._keys_of(tags, ahead, after, room)[:room]
            names = [tags[crc32(key) & 255] + b":" + key for key in found]
            for key, data in zip(found, self._values(names), strict=True):
                if data is not None:  # removed since
                    page.append((key, unpack(data)))
            if len(found) == room:
                after, bucket = found[-1], crc32(found[-1]) & 255
            else:
                after, bucket, step = b"", ahead.stop, step + 1
        return page

    def _keys_of(self, tags: list[bytes], buckets: range, after: bytes, limit: int) -> list[bytes]:
        """Keys of these buckets in order; ``after`` belongs to the first of them."""
        commands: list[Command] = []
        for bucket in buckets:
            start = b"(" + after if after and bucket == buckets.start else b"-"
            commands.append(("ZRANGEBYLEX", tags[bucket] + b"!keys", start, b"+", "LIMIT", 0, limit))
        return [key for keys in self._connection.exchange(commands) for key in keys]

    def replace(self, group: FeatureGroup, key: bytes, stored: Stored | None) -> None:
        """Set or remove what is held for a key without comparing.

        Raises:
            Unavailable: as for ``apply``.
        """
        name = self._tags_of(group)[crc32(key) & 255] + b":" + key
        self._connection.run(_REPLACE, [((name,), () if stored is None else (pack(stored),))])

    def drop(self, group: FeatureGroup) -> None:
        """Forget everything of the group, its position first; a drop that was cut short can be repeated.

        Raises:
            Unavailable: as for ``apply``.
        """
        self._connection.ask("DEL", self._position_key(group))
        left = [tag + b"!keys" for tag in self._tags_of(group)]
        while left:
            found = self._connection.run(_FORGET, [((name,), (_READ,)) for name in left])
            left = [name for name, count in zip(left, found, strict=True) if count]

    def close(self) -> None:
        """Release the connections; those of ``get_many_async`` end with their event loop, or by ``aclose``."""
        self._connection.close()

    async def aclose(self) -> None:
        """Release the connections ``get_many_async`` opened in the running event loop."""
        self._loaders.pop(asyncio.get_running_loop(), None)
        await self._connection.aclose()

    def _values(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys, in order: as few MGETs as the topology allows, sent together."""
        lanes: dict[bytes, list[int]] = {}
        if self._connection.cluster:
            for place, name in enumerate(names):
                lanes.setdefault(name[: name.index(b"}")], []).append(place)
        elif len(names) <= _READ:
            replies: list[bytes | None] = self._connection.ask("MGET", *names) if names else []
            return replies
        else:
            lanes[b""] = list(range(len(names)))
        parts = [places[start : start + _READ] for places in lanes.values() for start in range(0, len(places), _READ)]
        commands: list[Command] = [("MGET", *[names[place] for place in part]) for part in parts]
        found: list[bytes | None] = [None] * len(names)
        for part, values in zip(parts, self._connection.exchange(commands), strict=True):
            for place, value in zip(part, values, strict=True):
                found[place] = value
        return found

    def _tags_of(self, group: FeatureGroup) -> list[bytes]:
        tags = self._tags.get(group.number)
        if tags is None:
            head = f"{{{self._namespace}:{group.number}"
            tags = self._tags[group.number] = [f"{head}:{bucket:02x}}}".encode() for bucket in range(BUCKETS)]
        return tags

    def _position_key(self, group: FeatureGroup) -> bytes:
        return f"{{{self._namespace}:{group.number}}}!position".encode()


def open_store(url: str, *, namespace: str) -> RedisStore:
    """The store at ``url``; see ``RedisStore`` for the arguments and what is refused."""
    return RedisStore(url, namespace)


def _chains(rows: Sequence[Row]) -> dict[bytes, list[Row]]:
    """Per key, the rows that can matter, in log order.

    A row is left out only when another of the batch, sequenced no earlier, also wins over it by (event time, rank):
    whatever is held, and whatever barrier, the outcome is the same. Nothing is left out across a hard delete.
    """
    chains: dict[bytes, list[Row]] = {}
    for row in rows:
        if not row.flags & ONLINE:
            continue
        chain = chains.get(row.key)
        if chain is None:
            chains[row.key] = [row]
            continue
        if not row.flags & HARD:
            order, sequence = (row.event_time, row.rank), abs(row.rank)
            while chain and not chain[-1].flags & HARD:
                last = chain[-1]
                if (last.event_time, last.rank) < order and abs(last.rank) <= sequence:
                    chain.pop()
                elif (last.event_time, last.rank) >= order and abs(last.rank) >= sequence:
                    break
                else:
                    chain.append(row)
                    break
            else:
                chain.append(row)
            continue
        chain.append(row)
    return chains
