"""tilth dataset: training sets built, listed, described, recreated and deleted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from foundation.clock import moment_of
from foundation.errors import Conflict, InvalidInput
from foundation.progress import progress_for
from service.commands.options import AsJson, Place, examples
from service.console import DIFFERENCE, Answer, answer, counted, facts, grid, shown
from service.definitions import Definition, JoinAsked, read_definition, read_join, read_split
from service.places import opened
from service.texts import read_moment, read_names

if TYPE_CHECKING:
    from featurestore import DatasetBuilder, FeatureStore, SavedDataset

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Build, list, describe, recreate and delete training sets.")

_Id = Annotated[
    str, typer.Argument(metavar="ID", help="name@v1, or a name for its latest version.", show_default=False)
]
_PREVIEW = 5


_Spine = Annotated[
    str | None,
    typer.Argument(metavar="[SPINE]", help="The rows: Parquet, CSV, JSON lines …, or a query.", show_default=False),
]
_EventTime = Annotated[
    str | None, typer.Option("--event-time", "-e", metavar="COLUMN", help="The spine's column of moments.")
]
_Join = Annotated[
    list[str] | None,
    typer.Option(
        "--join",
        "-j",
        metavar="GROUP:…",
        help="A group, then any of on=COLUMN (or RECORD_ID:COLUMN, several by +), features=A+B, max_age=6h, "
        "prefix=P_, recent=3, from=MOMENT, to=MOMENT, include_deleted; repeatable.",
        show_default=False,
    ),
]
_Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="GROUP:within=…",
        help="A label: the group's first record after the row, within a span; on, features, prefix as for --join.",
        show_default=False,
    ),
]
_File = Annotated[
    str | None, typer.Option("--file", "-f", metavar="FILE", help="A TOML or JSON definition; options win over it.")
]
_KnownBy = Annotated[
    str | None,
    typer.Option(metavar="row|COLUMN", help="Use only what was known at the row's moment, or at a column's."),
]
_Boundary = Annotated[
    str | None, typer.Option(metavar="'<='|'<'", help="Whether a record at exactly the row's moment counts.")
]
_AsOf = Annotated[str | None, typer.Option(metavar="MOMENT", help="As if built then: rows written later do not exist.")]
_Zone = Annotated[str | None, typer.Option(metavar="ZONE", help="IANA zone of naive moments in the spine.")]
_Columns = Annotated[str | None, typer.Option(metavar="NAME,…", help="Spine columns that go into the result.")]
_Split = Annotated[
    str | None,
    typer.Option(metavar="train=0.8,test=0.2", help="Divide the rows; moments instead of shares cut by time."),
]
_SplitBy = Annotated[
    str | None, typer.Option(metavar="COLUMN,…", help="Columns whose equal rows stay together, or the event time.")
]
_Seed = Annotated[int, typer.Option(help="Another number, another random split.")]
_Save = Annotated[str | None, typer.Option(metavar="NAME", help="Keep it as the next version of this name.")]
_Description = Annotated[str, typer.Option(help="Text kept with it.", show_default=False)]
_Out = Annotated[
    str | None, typer.Option(metavar="FILE|FOLDER", help="Write it: a .parquet file, or a new Delta folder.")
]


@app.command(
    epilog=examples(
        "tilth dataset build flights.parquet --event-time scheduled --join weather:on=origin "
        "--join planes:on=tailnum,features=built+seats --known-by row --save late",
        "tilth dataset build \"SELECT * FROM 'flights.parquet' LIMIT 9\" -e scheduled --join weather:max_age=6h",
        "tilth dataset build --file late.toml --save late",
    )
)
def build(
    spine: _Spine = None,
    event_time: _EventTime = None,
    join: _Join = None,
    label: _Label = None,
    file: _File = None,
    known_by: _KnownBy = None,
    boundary: _Boundary = None,
    as_of: _AsOf = None,
    zone: _Zone = None,
    columns: _Columns = None,
    split: _Split = None,
    split_by: _SplitBy = None,
    seed: _Seed = 0,
    save: _Save = None,
    description: _Description = "",
    out: _Out = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Build a training set: one row per spine row, in spine order, each seeing only what it could have known.

    Without --save and --out its certificate and first rows are shown, and nothing is kept.
    """
    definition = _definition(
        spine,
        event_time,
        file=file,
        joins=[
            *(read_join(text, label=False) for text in join or []),
            *(read_join(text, label=True) for text in label or []),
        ],
        given={
            "known_by": known_by,
            "boundary": boundary,
            "as_of": None if as_of is None else read_moment(as_of, "--as-of"),
            "timezone": zone,
            "columns": read_names(columns),
            "split": None if split is None else read_split(split, by=split_by, seed=seed),
        },
    )
    _check_out(out, saved=save is not None)
    with opened(workspace) as store:
        builder = definition.builder(store)
        if save is not None:
            document, text = _save(store, builder, save, description, out)
        elif out is not None:
            document, text = _write(builder, out)
        else:
            document, text = _preview(builder)
    answer(document, as_json=as_json, text=text)


def _definition(
    spine: str | None, event_time: str | None, *, file: str | None, joins: list[JoinAsked], given: dict[str, Any]
) -> Definition:
    changes = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        found = read_definition(file)
        changes |= {"spine": spine} if spine is not None else {}
        changes |= {"event_time": event_time} if event_time is not None else {}
        return dataclasses.replace(found, joins=(*found.joins, *joins), **changes)
    if spine is None:
        raise InvalidInput(
            "no spine is given", subject="SPINE", hint="name a file or a query, or a definition with --file"
        )
    if event_time is None:
        raise InvalidInput(
            "the spine's column of moments is not given", subject="--event-time", hint="e.g. --event-time scheduled"
        )
    return Definition(spine=spine, event_time=event_time, joins=tuple(joins), **changes)


def _check_out(out: str | None, *, saved: bool) -> None:
    if saved and out is not None and Path(out).suffix != ".parquet":
        raise InvalidInput(
            f"--out {out!r} is no .parquet file", subject="--out", hint="with --save, e.g. training.parquet"
        )
    if out is not None and Path(out).suffix not in (".parquet", ""):
        raise InvalidInput(
            f"--out {out!r} is neither a .parquet file nor a folder", subject="--out", hint="e.g. training.parquet"
        )


def _save(
    store: FeatureStore, builder: DatasetBuilder, name: str, description: str, out: str | None
) -> tuple[dict[str, Any], Answer]:
    bar = progress_for(f"building {name}")
    try:
        saved = builder.save(name, description, progress=bar)
    finally:
        bar.done()
    if out is not None:
        import pyarrow.parquet as pq

        pq.write_table(store.datasets.load(saved.id), out)
    certificate = saved.certificate
    document = {**_document(saved), "certificate": certificate.to_dict(), "out": out}

    def text(console: Console) -> None:
        console.print(str(certificate))
        console.print()
        _describe(console, saved)
        if out is not None:
            console.print(f"written to {out}")

    return document, text


def _write(builder: DatasetBuilder, out: str) -> tuple[dict[str, Any], Answer]:
    bar = progress_for(f"building {out}")
    try:
        write = builder.write_parquet if Path(out).suffix == ".parquet" else builder.write_delta
        rows = write(out, progress=bar)
    finally:
        bar.done()
    document = {"rows": rows, "out": out}
    return document, lambda console: console.print(
        f"{counted(rows, 'row')} written to {out}; --save keeps a certificate, too"
    )


def _preview(builder: DatasetBuilder) -> tuple[dict[str, Any], Answer]:
    bar = progress_for("building")
    try:
        dataset = builder.build(progress=bar)
    finally:
        bar.done()
    table = dataset.table
    first = table.slice(0, _PREVIEW).to_pylist()
    document = {"rows": table.num_rows, "first": first, "certificate": dataset.certificate.to_dict()}

    def text(console: Console) -> None:
        console.print(grid(table.column_names, ([shown(cell) for cell in row.values()] for row in first)))
        console.print()
        console.print(str(dataset.certificate))
        console.print()
        console.print(f"{counted(table.num_rows, 'row')}, nothing kept: --save NAME keeps it, --out FILE writes it")

    return document, text


@app.command("list", epilog=examples("tilth dataset list", "tilth dataset list late"))
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Versions of this name only.")] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """List saved datasets, oldest version first."""
    with opened(workspace) as store:
        found = store.datasets.list(name)

    def text(out: Console) -> None:
        rows = [
            (each.id, f"{each.rows:,}", moment_of(each.created_at), each.content_hash[:16], each.description)
            for each in found
        ]
        out.print(
            grid(("dataset", "rows", "created", "content hash", "description"), rows, right=(1,))
            if rows
            else "no datasets"
        )

    answer({"datasets": [_document(each) for each in found]}, as_json=as_json, text=text)


@app.command(epilog=examples("tilth dataset show late", "tilth dataset show late@v1 --json"))
def show(id: _Id, workspace: Place = None, as_json: AsJson = False) -> None:
    """Describe a saved dataset, with its leak certificate."""
    with opened(workspace) as store:
        saved = store.datasets.get(id)
        certificate = saved.certificate

    def text(out: Console) -> None:
        _describe(out, saved)
        out.print()
        out.print(str(certificate))

    answer({**_document(saved), "certificate": certificate.to_dict()}, as_json=as_json, text=text)


@app.command(epilog=examples("tilth dataset recreate late@v1"))
def recreate(id: _Id, workspace: Place = None, as_json: AsJson = False) -> None:
    """Compute a saved dataset again from what it pinned, and compare content hashes. Ends with 1 if they differ."""
    with opened(workspace) as store:
        saved = store.datasets.get(id)
        bar = progress_for(f"recreating {saved.id}")
        try:
            again = store.datasets.recreate(saved.id, keep=False, progress=bar)
        except Conflict as error:
            differs = error
            document = {**_document(saved), "equal": False, "difference": differs.message, "hint": differs.hint}
            answer(
                document, as_json=as_json, text=lambda out: out.print(f"DIFFERENT: {differs.message}\n{differs.hint}")
            )
            raise typer.Exit(DIFFERENCE) from None
        finally:
            bar.done()
    answer(
        {**_document(saved), "equal": True, "recreated_hash": again.content_hash},
        as_json=as_json,
        text=lambda out: out.print(
            f"{saved.id} computed again: {saved.rows:,} rows, the same content {again.content_hash}"
        ),
    )


@app.command(epilog=examples("tilth dataset delete late@v1"))
def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="name@v1.", show_default=False)],
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Delete one version of a saved dataset; vacuum may then remove what it pinned."""
    with opened(workspace) as store:
        if "@" not in id:
            latest = store.datasets.get(id).id
            raise InvalidInput(f"{id!r} names no version", subject="ID", hint=f"e.g. {latest}")
        store.datasets.delete(id)
    answer({"deleted": id}, as_json=as_json, text=lambda out: out.print(f"dataset {id} deleted"))


def _document(saved: SavedDataset) -> dict[str, Any]:
    return {
        "id": saved.id,
        "name": saved.name,
        "version": saved.version,
        "description": saved.description,
        "rows": saved.rows,
        "parts": dict(saved.parts),
        "content_hash": saved.content_hash,
        "created_at": moment_of(saved.created_at),
        "path": saved.path,
        "table_versions": dict(saved.table_versions),
    }


def _describe(out: Console, saved: SavedDataset) -> None:
    facts(
        out,
        [
            ("dataset", saved.id),
            ("description", saved.description),
            ("rows", f"{saved.rows:,}"),
            ("parts", ", ".join(f"{name} {rows:,}" for name, rows in saved.parts.items())),
            ("content hash", saved.content_hash),
            ("created", moment_of(saved.created_at)),
            ("folder", saved.path),
            ("table versions", ", ".join(f"{name} {number}" for name, number in saved.table_versions.items())),
        ],
    )
