"""tilth group: declare, describe, find, change and delete feature groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from foundation.clock import moment_of
from foundation.errors import InvalidInput
from service.commands.options import AsJson, Name, Place, examples
from service.console import answer, facts, grid
from service.places import opened
from service.texts import infer_from_file, read_names, read_pairs, read_schema, read_span

if TYPE_CHECKING:
    from featurestore import FeatureGroup

__all__ = ["app", "group_document"]

app = typer.Typer(no_args_is_help=True, help="Declare, describe, find, change and delete feature groups.")

_Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.", show_default=False)
]
_Described = Annotated[
    list[str] | None,
    typer.Option("--describe", metavar="FEATURE=TEXT", help="Text about a feature; repeatable.", show_default=False),
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", metavar="FEATURE.KEY=VALUE", help="A parameter of a feature; repeatable.", show_default=False
    ),
]


_RecordId = Annotated[
    str, typer.Option("--record-id", metavar="COLUMN[,COLUMN]", help="Identifier column, or several.")
]
_EventTime = Annotated[str, typer.Option("--event-time", metavar="COLUMN", help="Event time column.")]
_Schema = Annotated[str | None, typer.Option("--schema", metavar='"name:Type, …"', help="Every column with its type.")]
_Like = Annotated[str | None, typer.Option("--like", metavar="FILE", help="Take the columns from a file.")]
_Ttl = Annotated[str | None, typer.Option(metavar="SPAN", help="Life of a record from its event time, e.g. 7d.")]
_OnEqual = Annotated[
    str, typer.Option("--on-equal", metavar="keep|replace", help="Which write at an equal event time stays.")
]
_Zone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="IANA zone of naive timestamps; without, they are refused.")
]
_Online = Annotated[bool, typer.Option("--online/--no-online", help="Keep the latest record of every key.")]
_Offline = Annotated[bool, typer.Option("--offline/--no-offline", help="Keep every record.")]
_Description = Annotated[str, typer.Option(help="Text about the group.", show_default=False)]


@app.command(
    epilog=examples(
        'tilth group create users --schema "id:Integral, seen:Timestamp, score:Fractional" '
        "--record-id id --event-time seen --ttl 30d",
        "tilth group create weather --like weather.parquet --record-id origin --event-time observed --on-equal replace",
    )
)
def create(
    name: Name,
    record_id: _RecordId,
    event_time: _EventTime,
    schema: _Schema = None,
    like: _Like = None,
    ttl: _Ttl = None,
    on_equal: _OnEqual = "keep",
    zone: _Zone = None,
    online: _Online = True,
    offline: _Offline = True,
    description: _Description = "",
    tag: _Tags = None,
    describe: _Described = None,
    parameter: _Parameters = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Declare a feature group; makes the workspace when there is none.

    Types: Integral, Fractional, String, Boolean, Timestamp, Date, Decimal(p, s), List<T>, Set<T>, Vector(n),
    Struct<name: T, …>.
    """
    if (schema is None) == (like is None):
        raise InvalidInput(
            "give either --schema or --like", subject="--schema", hint='e.g. --schema "id:Integral, seen:Timestamp"'
        )
    columns = read_schema(schema) if schema is not None else infer_from_file(str(like))
    life = None if ttl is None else read_span(ttl, "--ttl")
    tags, descriptions = read_pairs(tag or [], "--tag"), read_pairs(describe or [], "--describe")
    parameters = _parameters(parameter or [])
    with opened(workspace, create=True) as store:
        group = store.create_group(
            name,
            record_id=read_names(record_id) or [],
            event_time=event_time,
            schema=columns,
            online=online,
            offline=offline,
            ttl=life,
            on_equal=on_equal,
            zone=zone,
            description=description,
            tags=tags,
            descriptions=descriptions,
            parameters=parameters,
        )
        place = store.workspace.root
    answer(
        group_document(group),
        as_json=as_json,
        text=lambda out: out.print(f"group {group.name} created in {place}: {len(group.feature_names)} features"),
    )


@app.command(
    "list", epilog=examples("tilth group list", "tilth group list --tag team=risk --sort updated_at --descending")
)
def list_(
    contains: Annotated[str, typer.Option(help="Part of the name.", show_default=False)] = "",
    tag: _Tags = None,
    online: Annotated[
        bool | None, typer.Option("--online/--no-online", help="Only groups with, or without, an online store.")
    ] = None,
    offline: Annotated[
        bool | None, typer.Option("--offline/--no-offline", help="Only groups with, or without, an offline store.")
    ] = None,
    sort: Annotated[str, typer.Option(metavar="name|created_at|updated_at", help="Order.")] = "name",
    descending: Annotated[bool, typer.Option("--descending", help="Reverse the order.")] = False,
    limit: Annotated[int, typer.Option(help="Groups per page, 1 to 1,000.")] = 100,
    token: Annotated[str | None, typer.Option(help="next_token of the page before.", show_default=False)] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """List feature groups, a page at a time."""
    with opened(workspace) as store:
        page = store.list_groups(
            name_contains=contains,
            tags=read_pairs(tag or [], "--tag"),
            online=online,
            offline=offline,
            sort=sort,
            descending=descending,
            limit=limit,
            token=token,
        )

    def text(out: Console) -> None:
        _table(out, page.groups)
        if page.next_token is not None:
            out.print(f"more: --token {page.next_token}")

    answer(
        {"groups": [group_document(group) for group in page.groups], "next_token": page.next_token},
        as_json=as_json,
        text=text,
    )


@app.command(epilog=examples("tilth group show weather", "tilth group show weather --json"))
def show(name: Name, workspace: Place = None, as_json: AsJson = False) -> None:
    """Describe one feature group."""
    with opened(workspace) as store:
        group = store.get_group(name)
    answer(group_document(group), as_json=as_json, text=lambda out: _describe(out, group))


@app.command(epilog=examples('tilth group search "wind speed"', "tilth group search team=risk --limit 5"))
def search(
    text: Annotated[str, typer.Argument(help="Words; all must occur.", show_default=False)],
    limit: Annotated[int, typer.Option(help="Most groups shown.")] = 50,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Find groups by words in names, descriptions, tags, parameters and feature names; best first."""
    with opened(workspace) as store:
        groups = store.search_groups(text, limit=limit)
    answer(
        {"groups": [group_document(group) for group in groups]}, as_json=as_json, text=lambda out: _table(out, groups)
    )


@app.command(
    epilog=examples(
        'tilth group update users --add "age:Integral" --describe "age=years, as told at sign-up"',
        "tilth group update users --ttl 90d --tag team=risk --remove-tag draft",
    )
)
def update(
    name: Name,
    add: Annotated[
        str | None, typer.Option("--add", metavar='"name:Type, …"', help="Features to add; none is ever removed.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="SPAN", help="Life of records written from now on.")] = None,
    no_ttl: Annotated[bool, typer.Option("--no-ttl", help="Records written from now on do not expire.")] = False,
    description: Annotated[str | None, typer.Option(help="New text about the group.", show_default=False)] = None,
    tag: _Tags = None,
    remove_tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A tag to remove; repeatable.", show_default=False)
    ] = None,
    describe: _Described = None,
    parameter: _Parameters = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Change a group, all of it or nothing; what is not given stays."""
    with opened(workspace) as store:
        group = store.update_group(
            name,
            add_features=None if add is None else read_schema(add),
            ttl=None if ttl is None else read_span(ttl, "--ttl"),
            no_ttl=no_ttl,
            description=description,
            descriptions=read_pairs(describe or [], "--describe"),
            parameters=_parameters(parameter or []),
            tags=read_pairs(tag or [], "--tag"),
            remove_tags=remove_tag or [],
        )
    answer(group_document(group), as_json=as_json, text=lambda out: _describe(out, group))


@app.command(epilog=examples("tilth group delete users", "tilth group delete users --offline purge --yes"))
def delete(
    name: Name,
    offline: Annotated[str, typer.Option(metavar="keep|purge", help="Whether the offline files stay or go.")] = "keep",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before purging.")] = False,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Delete a group: its online records at once, its offline files when asked to."""
    if offline not in ("keep", "purge"):
        raise InvalidInput(f"--offline {offline!r} is unknown", subject="--offline", hint="use keep or purge")
    with opened(workspace) as store:
        if offline == "purge" and not yes:
            store.get_group(name)
            typer.confirm(f"Delete every record of {name!r} for good?", abort=True, err=True)
        store.delete_group(name, offline=offline)
    kept = "offline files purged" if offline == "purge" else "offline files kept"
    answer(
        {"deleted": name, "offline": offline},
        as_json=as_json,
        text=lambda out: out.print(f"group {name} deleted, {kept}"),
    )


def group_document(group: FeatureGroup) -> dict[str, Any]:
    """A group as plain JSON, moments as ISO 8601."""
    document = group.to_document()
    document["ttl"] = None if group.ttl is None else group.ttl.total_seconds()
    for name in ("created_at", "updated_at"):
        document[name] = moment_of(document[name]).isoformat()
    del document["number"], document["folder"]
    return document


def _parameters(texts: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for place, value in read_pairs(texts, "--parameter").items():
        feature, dot, key = place.partition(".")
        if not dot or not feature or not key:
            raise InvalidInput(
                f"--parameter {place!r} is not feature.key", subject="--parameter", hint="e.g. age.unit=years"
            )
        found.setdefault(feature, {})[key] = value
    return found


def _table(out: Console, groups: Sequence[FeatureGroup]) -> None:
    if not groups:
        out.print("no groups")
        return
    out.print(
        grid(
            ("group", "record id", "event time", "features", "stores", "ttl", "description"),
            [
                (
                    group.name,
                    ", ".join(group.record_id),
                    group.event_time,
                    len(group.feature_names),
                    _stores(group),
                    group.ttl,
                    group.description,
                )
                for group in groups
            ],
            right=(3,),
        )
    )


def _stores(group: FeatureGroup) -> str:
    return " + ".join(name for name, there in (("online", group.online), ("offline", group.offline)) if there)


def _describe(out: Console, group: FeatureGroup) -> None:
    facts(
        out,
        [
            ("group", group.name),
            ("description", group.description),
            ("record id", ", ".join(group.record_id)),
            ("event time", group.event_time),
            ("stores", _stores(group)),
            ("ttl", group.ttl),
            ("equal times", "the last write replaces" if group.on_equal == "replace" else "the first write stays"),
            ("naive times", f"read in {group.zone}" if group.zone else None),
            ("tags", ", ".join(f"{key}={value}" for key, value in group.tags.items())),
            ("version", group.version),
            ("created", moment_of(group.created_at)),
            ("updated", moment_of(group.updated_at)),
        ],
    )
    roles = {**dict.fromkeys(group.record_id, "record id"), group.event_time: "event time"}
    out.print()
    out.print(
        grid(
            ("feature", "type", "role", "since", "description", "parameters"),
            [
                (
                    each.name,
                    each.type.name,
                    roles.get(each.name, ""),
                    f"v{each.since}",
                    each.description,
                    ", ".join(f"{key}={value}" for key, value in each.parameters.items()),
                )
                for each in group.features
            ],
        )
    )
