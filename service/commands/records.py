"""tilth put, get, delete, list, history, ingest: records in and out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from foundation.errors import InvalidInput
from foundation.progress import progress_for
from service.commands.options import AsJson, Name, Place, examples
from service.console import answer, counted, facts, grid, plain, span
from service.gates import read_gate
from service.places import opened
from service.texts import read_key, read_moment, read_names, read_record, read_records, read_span, with_typed_key

__all__ = ["register"]

_Key = Annotated[
    list[str],
    typer.Argument(metavar="KEY…", help="The identifier; its parts in order for a composite one.", show_default=False),
]
_Stores = Annotated[
    str | None,
    typer.Option("--stores", metavar="online,offline", help="Write to these stores only.", show_default=False),
]
_Ttl = Annotated[
    str | None, typer.Option(metavar="SPAN", help="Life from event time, over the group's.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(
        rich_help_panel="Records",
        epilog=examples(
            "tilth put users id=7 seen=2026-01-31T12:00:00Z score=0.5",
            """tilth put users '{"id": 7, "seen": "2026-01-31T12:00:00Z", "score": 0.5}'""",
            "tilth put users --file records.jsonl",
        ),
    )(put)
    app.command(
        rich_help_panel="Records",
        epilog=examples(
            "tilth get users 7",
            "tilth get weather JFK --features temp,wind_speed --json",
            "tilth get weather JFK --at 2013-07-01T12:00:00Z",
        ),
    )(get)
    app.command(
        rich_help_panel="Records",
        epilog=examples(
            "tilth delete users 7 --event-time 2026-02-01T00:00:00Z",
            "tilth delete users 7 --event-time 2026-02-01T00:00:00Z --hard",
        ),
    )(delete)
    app.command(
        "list", rich_help_panel="Records", epilog=examples("tilth list users", "tilth list users --deleted --limit 10")
    )(list_)
    app.command(
        rich_help_panel="Records",
        epilog=examples("tilth history users 7", "tilth history users 7 --as-of 2026-02-01T00:00:00Z --json"),
    )(history)
    app.command(
        rich_help_panel="Records",
        epilog=examples(
            "tilth ingest weather weather.parquet --known-at published",
            "tilth ingest weather --sql \"SELECT * FROM '2013-*.csv' WHERE temp IS NOT NULL\"",
            "tilth ingest users users.csv --zone America/New_York --gate checks.json --on-error reject",
        ),
    )(ingest)


def put(
    name: Name,
    record: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FEATURE=VALUE… | JSON]", help="The record; what it leaves out is null.", show_default=False
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE", help="Many records, one JSON object a line; - is stdin."),
    ] = None,
    ttl: _Ttl = None,
    known_at: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="When the values were known; without, now.", show_default=False)
    ] = None,
    stores: _Stores = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same text within 24 hours writes once.", show_default=False)
    ] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Write one record, or all records of a file or none of them. Durable when it returns."""
    if (not record) == (file is None):
        raise InvalidInput("give either a record or --file", subject="record", hint="e.g. id=7 score=0.5")
    life = None if ttl is None else read_span(ttl, "--ttl")
    known = None if known_at is None else read_moment(known_at, "--known-at")
    with opened(workspace) as store:
        group = store.get_group(name)
        found = (
            [with_typed_key(group, each) for each in read_records(file)] if file else [read_record(group, record or [])]
        )
        receipt = store.put_records(
            name,
            found,
            ttl=life,
            known_at=known,
            target_stores=read_names(stores),
            idempotency_key=idempotency_key,
        )
    said = "written before, nothing done" if receipt.repeated else f"{counted(receipt.count, 'record')} written"
    answer(receipt, as_json=as_json, text=lambda out: out.print(f"{said}, log position {receipt.position}"))


def get(
    name: Name,
    key: _Key,
    features: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Only these features.", show_default=False)
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="MOMENT", help="As it would have been answered then, by write time.", show_default=False),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="By event times up to then.", show_default=False)
    ] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Read the latest record of a key, with its age and status.

    Ends with 3 when there is none to serve (missing, deleted, expired); the answer says which.
    """
    written = None if as_of is None else read_moment(as_of, "--as-of")
    moment = None if at is None else read_moment(at, "--at")
    wanted = read_names(features)
    with opened(workspace) as store:
        asked = read_key(store.get_group(name), key)
        if written is None and moment is None:
            found = store.lookup(name, asked, wanted)
            status, record, document = found.status, found.record, plain(found)
            about = [
                ("event time", found.event_time),
                ("written", found.write_time),
                ("age", found.age),
                ("expires", found.expires_at),
            ]
        else:
            record = store.get_record(name, asked, wanted, as_of=written, at=moment)
            status, about = "missing" if record is None else "present", []
            document = {"status": status, "record": plain(record)}

    def text(out: Console) -> None:
        if record is None:
            out.print(f"{name} {' '.join(key)}: {status}")
        else:
            out.print(grid(("feature", "value"), record.items()))
        if about and status != "missing":
            out.print()
            facts(out, about)

    answer({"group": name, "key": asked, **document}, as_json=as_json, text=text)
    if record is None:
        raise typer.Exit(3)


def delete(
    name: Name,
    key: _Key,
    event_time: Annotated[str, typer.Option("--event-time", metavar="MOMENT", help="Deleted from this moment on.")],
    hard: Annotated[
        bool, typer.Option("--hard", help="Hide everything written before, whatever its event time.")
    ] = False,
    stores: _Stores = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Delete a record from an event time on. History keeps its rows."""
    moment = read_moment(event_time, "--event-time")
    with opened(workspace) as store:
        asked = read_key(store.get_group(name), key)
        receipt = store.delete_record(name, asked, moment, hard=hard, target_stores=read_names(stores))
    answer(
        receipt,
        as_json=as_json,
        text=lambda out: out.print(
            f"{name} {' '.join(key)} deleted from {moment.isoformat()} on, log position {receipt.position}"
        ),
    )


def list_(
    name: Name,
    limit: Annotated[int, typer.Option(help="Keys per page, 1 to 10,000.")] = 100,
    token: Annotated[str | None, typer.Option(help="next_token of the page before.", show_default=False)] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Show soft-deleted keys, too.")] = False,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """List the keys that have a record online, a page at a time."""
    with opened(workspace) as store:
        group = store.get_group(name)
        page = store.list_records(name, limit=limit, token=token, include_deleted=deleted)

    def text(out: Console) -> None:
        rows = [key if isinstance(key, tuple) else (key,) for key in page.keys]
        out.print(grid(group.record_id, rows) if rows else "no records")
        if page.next_token is not None:
            out.print(f"more: --token {page.next_token}")

    answer({"group": name, "keys": page.keys, "next_token": page.next_token}, as_json=as_json, text=text)


def history(
    name: Name,
    key: _Key,
    as_of: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Rows written up to then.", show_default=False)
    ] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Every row ever accepted for a key, deletes included, in (event time, rank) order."""
    moment = None if as_of is None else read_moment(as_of, "--as-of")
    with opened(workspace) as store:
        group = store.get_group(name)
        asked = read_key(group, key)
        table = store.history(name, asked, as_of=moment)
    rows = table.to_pylist()

    def text(out: Console) -> None:
        if not rows:
            out.print(f"{name} {' '.join(key)}: no rows")
            return
        features = [feature for feature in group.names if feature not in (*group.record_id, group.event_time)]
        heads = (group.event_time, *features, "written", "known", "expires", "rank", "")
        out.print(grid(heads, [_history_row(group.event_time, features, row) for row in rows]))

    answer({"group": name, "key": asked, "rows": rows}, as_json=as_json, text=text)
    if not rows:
        raise typer.Exit(3)


def _history_row(event_time: str, features: Sequence[str], row: dict[str, Any]) -> list[object]:
    state = "hard delete" if row["tilth_hard"] else "deleted" if row["is_deleted"] else ""
    known = row["tilth_known_at"] or "when written"
    cells = [row[name] for name in (event_time, *features, "write_time")]
    return [*cells, known, row["tilth_expires_at"], row["tilth_rank"], state]


_Source = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE…]",
        help="Files, globs or a folder: CSV, JSON lines, Parquet, Arrow, Delta, SQLite.",
        show_default=False,
    ),
]
_Sql = Annotated[
    str | None,
    typer.Option(metavar="QUERY", help="A DuckDB query over files, or over FILE as `source`.", show_default=False),
]
_KnownAt = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN|SPAN",
        help="When each row was known: a column, or a delay after the event time such as 10m; without, now.",
        show_default=False,
    ),
]
_Zone = Annotated[
    str | None,
    typer.Option(metavar="ZONE", help="IANA zone of this source's naive timestamps.", show_default=False),
]
_Gate = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Checks (Great Expectations JSON) rows must pass.", show_default=False),
]
_OnError = Annotated[
    str, typer.Option("--on-error", metavar="quarantine|reject", help="Refused rows aside, or the load refused.")
]
_Again = Annotated[bool, typer.Option("--again", help="Load even if the same content was loaded before.")]


def ingest(
    name: Name,
    source: _Source = None,
    sql: _Sql = None,
    known_at: _KnownAt = None,
    zone: _Zone = None,
    gate: _Gate = None,
    on_error: _OnError = "quarantine",
    stores: _Stores = None,
    ttl: _Ttl = None,
    again: _Again = False,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Load a whole source: visible all at once, or not at all. The same content again is a no-op."""
    if not source and sql is None:
        raise InvalidInput("give a file or --sql", subject="source", hint="e.g. tilth ingest weather weather.parquet")
    files: Any = None if not source else source[0] if len(source) == 1 else list(source)
    life = None if ttl is None else read_span(ttl, "--ttl")
    suite = None if gate is None else read_gate(gate)
    with opened(workspace) as store:
        known = None if known_at is None else _known(known_at)
        bar = progress_for(f"loading {name}")
        try:
            report = store.ingest(
                name,
                files,
                sql=sql,
                gate=suite,
                on_error=on_error,
                known_at=known,
                zone=zone,
                target_stores=read_names(stores),
                ttl=life,
                again=again,
                progress=bar,
            )
        finally:
            bar.done()

    def text(out: Console) -> None:
        if report.repeated:
            out.print(f"loaded before (load {report.load}): nothing written; --again loads it once more")
            return
        rate = report.rows / report.seconds if report.seconds else 0.0
        out.print(
            f"{counted(report.rows, 'row')} loaded in {span(report.seconds)} ({rate:,.0f} rows/s), "
            f"{report.published:,} online"
        )
        if report.rejected:
            out.print(f"{counted(report.rejected, 'row')} refused: see tilth quarantine {name}")
            for reason, count in report.reasons.items():
                out.print(f"  {count:,}  {reason}")

    answer(report, as_json=as_json, text=text)


def _known(text: str) -> str | timedelta:
    """A delay where it reads as a length of time, else a column name."""
    try:
        return read_span(text, "--known-at")
    except InvalidInput:
        return text
