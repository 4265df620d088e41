"""`zoo plugin`: whether a package's components keep zoo's contracts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from zoo.schema.errors import UsageError

plugin = typer.Typer(help="Look at plugin packages.")


@plugin.callback()
def _plugin() -> None:
    """Look at plugin packages."""


@plugin.command("check")
def check(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="An installed package, or one component: kind/name.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KIND.NAME.KEY=VALUE", help="An argument that a component is made with."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the conformance suite on a package's components; exit code 1 where a promise is broken."""
    from zoo.schema.registry import find_plugin, registry

    if "/" in package:  # a wrong name is refused before torch is imported
        kind, _, name = package.partition("/")
        registry().entry(kind, name)
        keys: Sequence[str] = (package,)
    else:
        keys = find_plugin(package).keys
    given = _read_settings(settings or (), keys)
    from zoo.cli.table import print_table
    from zoo.conformance import examine_component, examine_package

    report = examine_component(package, given) if "/" in package else examine_package(package, given)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        shown = {"passed": "ok", "failed": "BROKEN", "not asked": "-"}
        print_table(
            ("component", "check", "", "what was seen"),
            [
                (
                    f"{o.kind}/{o.name}",
                    o.check,
                    shown[o.state],
                    f"{o.said}; {o.mend}" if o.mend else o.said or o.promise,
                )
                for o in report.outcomes
            ],
        )
        version = f" {report.version}" if report.version else ""
        kept = sum(o.state == "passed" for o in report.outcomes)
        typer.echo(f"{report.subject}{version}: {kept} promises kept, {len(report.failed)} broken")
    if not report.ok:
        raise typer.Exit(1)


def _read_settings(settings: Sequence[str], keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`sampler.mine.eta=0.5` -> {"sampler/mine": {"eta": 0.5}}; names may hold dots, so the keys decide."""
    from zoo.schema.safe_yaml import parse_value
    from zoo.schema.unknown import unknown

    given: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting} gives no value; write KIND.NAME.KEY=VALUE", code="override-invalid")
        front, _, argument = path.rpartition(".")
        key = next((k for k in keys if k.replace("/", ".", 1) == front), None)
        if key is None:
            raise UsageError(
                f"--set {setting}: {unknown('component', front, [k.replace('/', '.', 1) for k in keys])}",
                code="component-unknown",
            )
        given.setdefault(key, {})[argument] = parse_value(value, source=f"--set {path}")
    return given
