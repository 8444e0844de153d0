"""Looking after a workspace: verify, rebuild, flush, compact, vacuum, export, quarantine, audit, doctor, bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from foundation.clock import moment_of
from foundation.errors import InvalidInput
from foundation.progress import progress_for
from service.commands.options import AsJson, Name, Place, examples
from service.console import DIFFERENCE, answer, counted, facts, grid, plain, shown, span
from service.places import opened, workspace_of
from service.texts import read_moment, read_span

if TYPE_CHECKING:
    from featurestore import FeatureStore

__all__ = ["register"]

_Group = Annotated[str | None, typer.Argument(metavar="[GROUP]", help="One group; without, all.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb, lines in (
        (verify, ("tilth verify", "tilth verify weather --sample 0.1", "tilth verify weather --repair")),
        (rebuild, ("tilth rebuild weather", "tilth rebuild weather --store offline")),
        (flush, ("tilth flush", "tilth flush weather")),
        (compact, ("tilth compact weather", "tilth compact --tiered")),
        (vacuum, ("tilth vacuum weather", "tilth vacuum weather --older-than 30d")),
        (export, ("tilth export weather exported/",)),
        (quarantine, ("tilth quarantine weather", "tilth quarantine weather --limit 5 --json")),
        (audit, ("tilth audit", "tilth audit weather --since 2026-01-01T00:00:00Z")),
        (doctor, ("tilth doctor", "tilth doctor --json")),
    ):
        app.command(rich_help_panel="Care", epilog=examples(*lines))(verb)
    app.command(
        rich_help_panel="Care",
        epilog=examples("tilth bench", "tilth bench online --quick --no-peers"),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(bench)


def verify(
    group: _Group = None,
    sample: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the keys to compare, e.g. 0.1.", show_default=False)
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set differing online records right from the offline store.")
    ] = False,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is served online with what the offline store says, cell by cell. Ends with 1 if they differ."""
    if sample is not None and not 0 < sample <= 1:
        raise InvalidInput(f"--sample {sample} is not a share", subject="--sample", hint="above 0, at most 1")
    with opened(workspace) as store:
        names = [group] if group is not None else _names(store, both=True)
        reports = [store.verify(name, sample=sample, repair=repair) for name in names]
    ok = all(report.ok for report in reports)

    def text(out: Console) -> None:
        if not reports:
            out.print("no group lives in both stores")
        for report in reports:
            verdict = "agrees" if not report.different else f"{counted(report.different, 'key')} DIFFER"
            fixed = f", {report.repaired:,} repaired" if report.repaired else ""
            out.print(
                f"{report.group}: {verdict}{fixed}; {counted(report.checked, 'key')}, {counted(report.cells, 'cell')} "
                f"in {span(report.seconds)}"
            )
            if report.single_store:
                out.print(f"  {report.single_store:,} keys were written to the online store alone")
            rows = [(each.key, each.what, each.online, each.offline) for each in report.differences]
            if rows:
                out.print(grid(("key", "what", "online", "offline"), rows))

    told = [{**plain(each), "now": moment_of(each.now), "ok": each.ok} for each in reports]
    answer({"ok": ok, "groups": told}, as_json=as_json, text=text)
    if not ok:
        raise typer.Exit(DIFFERENCE)


def rebuild(
    group: Name,
    store_name: Annotated[
        str, typer.Option("--store", metavar="online|offline", help="The store to compute again from the other.")
    ] = "online",
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Compute a store again from the other: online anew, or offline with what it lacks."""
    with opened(workspace) as store:
        count = store.rebuild(group, store_name)
    answer(
        {"group": group, "store": store_name, "records": count},
        as_json=as_json,
        text=lambda out: out.print(f"{group}: {counted(count, 'record')} written to the {store_name} store"),
    )


def flush(group: _Group = None, workspace: Place = None, as_json: AsJson = False) -> None:
    """Bring everything acknowledged into both stores."""
    with opened(workspace) as store:
        count = store.flush(group)
    answer(
        {"group": group, "rows": count},
        as_json=as_json,
        text=lambda out: out.print(f"{counted(count, 'row')} committed offline"),
    )


def compact(
    group: _Group = None,
    tiered: Annotated[
        bool, typer.Option("--tiered", help="Merge only where the sizes of the runs make it pay.")
    ] = False,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Merge a group's sorted runs; writers go on meanwhile and no row is dropped."""
    reports = []
    with opened(workspace) as store:
        for name in [group] if group is not None else _names(store, offline=True):
            bar = progress_for(f"compacting {name}")
            try:
                reports.append((name, store.compact(name, full=not tiered, progress=bar)))
            finally:
                bar.done()

    def text(out: Console) -> None:
        for name, report in reports:
            out.print(
                f"{name}: {report.runs_before} runs became {report.runs_after}; {report.rows:,} rows, "
                f"{report.bytes / 1e6:.1f} MB written in {span(report.seconds)}"
            )

    answer({"groups": [{"group": name, **plain(report)} for name, report in reports]}, as_json=as_json, text=text)


def vacuum(
    group: _Group = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Versions younger than this stay; without, the setting time_travel."),
    ] = None,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Delete offline files that no young enough version and no saved dataset needs."""
    age = None if older_than is None else read_span(older_than, "--older-than")
    with opened(workspace) as store:
        names = [group] if group is not None else _names(store, offline=True)
        reports = [store.vacuum(name, older_than=age) for name in names]
    answer(
        {"groups": reports},
        as_json=as_json,
        text=lambda out: out.print("\n".join(f"{each.group}: {len(each.removed)} files removed" for each in reports)),
    )


def export(
    group: Name,
    destination: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to.", show_default=False)],
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Write a group's history as Parquet in SageMaker's offline layout."""
    with opened(workspace) as store:
        bar = progress_for(f"exporting {group}")
        try:
            report = store.export(group, destination, progress=bar)
        finally:
            bar.done()
    answer(report, as_json=as_json, text=lambda out: facts(out, plain(report).items()))


def quarantine(
    group: Name,
    load: Annotated[str | None, typer.Option(metavar="ID", help="Rows of one load only.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="Most rows shown.")] = 100,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Rows that loads refused, with the reason, newest loads first."""
    with opened(workspace) as store:
        rows = store.quarantined(group, load=load, limit=limit).to_pylist()
    answer(
        {"group": group, "rows": rows},
        as_json=as_json,
        text=lambda out: out.print(
            grid(
                ("load", "at", "row", "field", "reason", "record"),
                ([shown(cell) for cell in row.values()] for row in rows),
            )
            if rows
            else "nothing in quarantine"
        ),
    )


def audit(
    group: _Group = None,
    since: Annotated[str | None, typer.Option(metavar="MOMENT", help="From then on.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="Most entries shown.")] = 100,
    workspace: Place = None,
    as_json: AsJson = False,
) -> None:
    """Who changed what when, newest first."""
    moment = None if since is None else read_moment(since, "--since")
    with opened(workspace) as store:
        entries = store.audit(group, since=moment, limit=limit)
    rows = [{**plain(entry), "at": moment_of(entry.at).isoformat()} for entry in entries]
    heads = ("at", "actor", "action", "kind", "name", "version", "detail")
    answer(
        {"entries": rows},
        as_json=as_json,
        text=lambda out: out.print(
            grid(heads, ([row[head] for head in heads] for row in rows), right=(5,)) if rows else "no entries"
        ),
    )


def doctor(workspace: Place = None, as_json: AsJson = False) -> None:
    """Examine the installation and a workspace: what is well, what is not, what to do. Ends with 1 on a failure."""
    from service.doctor import examine

    findings = examine(workspace_of(workspace))
    failed = any(each.status == "fail" for each in findings)

    def text(out: Console) -> None:
        for each in findings:
            out.print(f"{each.status.ljust(4)}  {each.what}: {each.detail}")
            if each.fix:
                out.print(f"      fix: {each.fix}")

    answer({"ok": not failed, "findings": findings}, as_json=as_json, text=text)
    if failed:
        raise typer.Exit(DIFFERENCE)


def bench(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="pit_join, online or ingest; without, all.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the benchmarks of a source checkout, peers included; see docs/benchmarks.md.

    Further options (--quick, --no-peers …) are handed on to them.
    """
    from service.bench import run_benchmarks

    given = [*(names or []), *context.args]
    options = [each for each in given if each.startswith("-")]
    raise typer.Exit(run_benchmarks([each for each in given if not each.startswith("-")], options, as_json=as_json))


def _names(store: FeatureStore, *, both: bool = False, offline: bool = False) -> list[str]:
    """Every group, those in both stores, or those with an offline one."""
    found: list[str] = []
    token: str | None = None
    while True:
        page = store.list_groups(
            online=True if both else None, offline=True if both or offline else None, limit=1000, token=token
        )
        found += [group.name for group in page.groups]
        token = page.next_token
        if token is None:
            return found
