"""Component blocks: a name (`trailing`) or a mapping `{name: karras, rho: 7}`, checked and written out in full.

`name` is the registry key, the rest are keyword arguments. An argument whose name is a registry kind takes a block of
that kind, so blocks nest: `sampler: {name: ddim, grid: {name: karras, rho: 5}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from zoo.schema.errors import ConfigError, ZooError
from zoo.schema.plain import show
from zoo.schema.registry import KINDS, Registry
from zoo.schema.signature import Parameter, Signature
from zoo.schema.unknown import unknown
from zoo.schema.values import fits, is_scalar, wanted


def check_block(block: Any, *, kind: str, where: str, registry: Registry) -> dict[str, Any]:
    """The block as a mapping with `name` first and nested blocks written out; ConfigError naming `where`."""
    if isinstance(block, str):
        block = {"name": block}
    if not isinstance(block, Mapping):
        raise ConfigError(
            f"{where} is {show(block)}; give the name of a {kind} or a block {{name: ...}}", code="block-invalid"
        )
    name = block.get("name")
    if not isinstance(name, str):
        there = ", ".join(registry.names(kind))
        raise ConfigError(f"{where} names no {kind}; add name: one of {there}", code="block-name-missing")
    try:
        entry = registry.entry(kind, name)
        signature = entry.signature()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", code=error.code) from error
    arguments = {key: value for key, value in block.items() if key != "name"}
    checked = check_arguments(arguments, signature, what=f"{kind} '{name}'", where=where, registry=registry)
    check_fit(checked, signature, what=f"{kind} '{name}'", where=where)
    return {"name": name, **checked}


def check_fit(arguments: Mapping[str, Any], signature: Signature, *, what: str, where: str) -> None:
    """Check by the function that a component names in `fits` that it can be made with these arguments and defaults.

    ConfigError with that function's own sentence where it refuses them.
    """
    target = signature.constants.get("fits")
    if not isinstance(target, str):
        return
    module, _, attr = target.partition(":")
    try:
        function = getattr(import_module(module), attr)
    except Exception as error:  # a plugin's module may raise anything
        raise ConfigError(
            f"{where}: {what} names '{target}' in fits, which can't be imported ({type(error).__name__}: {error}); "
            "mend or uninstall that package",
            code="component-import-failed",
        ) from error
    # A default that isn't a literal (math.inf) is left to the function's own.
    known = {p.name: p.literal() for p in signature.parameters}
    given = {name: value for name, value in known.items() if value is not None or _is_none(signature, name)}
    given |= arguments
    try:
        function(**{name: given[name] for name in parameters_of(function) if name in given})
    except ZooError as error:
        raise ConfigError(f"{where}: {what}: {error}", code=error.code) from error


def _is_none(signature: Signature, name: str) -> bool:
    return any(p.name == name and p.default == "None" for p in signature.parameters)


def parameters_of(function: Any) -> tuple[str, ...]:
    """The names of a function's parameters."""
    code = getattr(function, "__code__", None)
    if code is None:  # not a plain function
        from inspect import signature

        return tuple(signature(function).parameters)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def check_arguments(
    arguments: Mapping[str, Any], signature: Signature, *, what: str, where: str, registry: Registry
) -> dict[str, Any]:
    """Keyword arguments checked against a signature: none unknown, none missing, each of its type."""
    parameters = {p.name: p for p in signature.parameters}
    checked: dict[str, Any] = {}
    for key, value in arguments.items():
        parameter = parameters.get(key)
        if parameter is None:
            if not signature.open:
                raise ConfigError(
                    f"{where}: {unknown(f'argument of {what}:', key, parameters)}", code="argument-unknown"
                )
            checked[key] = value
            continue
        checked[key] = _check_value(value, parameter, what=what, where=f"{where}.{key}", registry=registry)
    missing = [p.name for p in signature.parameters if p.required and p.name not in arguments]
    if missing:
        names = " and ".join(f"'{name}'" for name in missing)
        raise ConfigError(
            f"{where}: {what} needs {names}; add {'it' if len(missing) == 1 else 'them'} to the block",
            code="argument-missing",
        )
    return checked


def takes_block(parameter: Parameter) -> bool:
    """Whether an argument takes a component block: it is named like a kind and isn't plain text or a number."""
    return parameter.name in KINDS and not is_scalar(parameter)


def make(kind: str, block: Any, registry: Registry) -> Any:
    """The component of a block, imported and made with its arguments; arguments named like a kind are blocks."""
    named = {"name": block} if isinstance(block, str) else dict(block)
    target = registry.load(kind, named.pop("name", ""))
    return target(**{key: make(key, v, registry) if key in KINDS and is_block(v) else v for key, v in named.items()})


def is_block(value: Any) -> bool:
    """Whether a value may be a component block: a name, or a mapping that has one."""
    return isinstance(value, str) or (isinstance(value, Mapping) and "name" in value)


def _check_value(value: Any, parameter: Parameter, *, what: str, where: str, registry: Registry) -> Any:
    if takes_block(parameter):
        if value is None and fits(None, parameter) and parameter.default == "None":
            return None
        return check_block(value, kind=parameter.name, where=where, registry=registry)
    if not fits(value, parameter):
        raise ConfigError(f"{where} of {what} takes {wanted(parameter)}, not {show(value)}", code="argument-type-wrong")
    return value
