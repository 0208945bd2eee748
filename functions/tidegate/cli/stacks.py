"""Which stack or stores a command works on, as its options, a running stack or the settings say; and the fleet of a stack.

A command with `STORE_OPTIONS` takes them as its argument `stores`, for `resolve_settings`.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate import stack_file
from tidegate.cli.columns import say
from tidegate.errors import OperatorsOnlyError, SettingsError, UnavailableError
from tidegate.settings import PREFIX, Settings

F = TypeVar("F", bound=Callable[..., Any])

LOCAL_STACK = "http://127.0.0.1:8080"
"""Where `tidegate up` answers unless an option says otherwise."""

FLEET = "/v1/fleet"
TIMEOUT_S = 5.0
_SAID = "tidegate.stack_said"

_STORES = {
    "endpoint_url": ("aws_endpoint_url", "Address of S3 and DynamoDB"),
    "bucket": ("bucket", "S3 bucket of models and bundles"),
    "registry_table": ("registry_table", "DynamoDB table of the registry"),
    "region": ("aws_region", "AWS region"),
}
SETTINGS = {option: setting for option, (setting, _) in _STORES.items()}
"""The setting of each option, and of each entry of `control` in the `/v1/fleet` of a stack."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The options that name the stores; None for one that was not given."""

    stack: str | None = None
    endpoint_url: str | None = None
    bucket: str | None = None
    registry_table: str | None = None
    region: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The settings that options name, by the setting's name."""
        texts = {setting: getattr(self, option) for option, setting in SETTINGS.items()}
        return {setting: text for setting, text in texts.items() if text is not None}


def sound(settings: Mapping[str, str]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a callback that checks an option's text as that of its setting, given the setting of each option."""

    def check(_: click.Context, option: click.Parameter, text: str | None) -> str | None:
        if text is not None:
            variable = PREFIX + settings[str(option.name)].upper()
            try:
                Settings.from_environment({variable: text})
            except SettingsError as error:
                raise click.BadParameter(str(error).removeprefix(f"{variable} ")) from error
        return text

    return check


def http_address(_: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Refuse the text of an option that is not the address of a gateway."""
    if text is not None and not text.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} is not an http:// or https:// address")
    return text


STACK = click.option(
    "--stack",
    callback=http_address,
    help=f"Running stack whose stores are used. Default: TIDEGATE_STACK, else {LOCAL_STACK} if one answers there.",
)


def STORE_OPTIONS(command: F) -> F:  # noqa: N802  # click's decorators are constants here
    """Give a command the options that name the stores, as its argument `stores`."""

    @functools.wraps(command)
    def with_stores(**arguments: Any) -> Any:
        own = {field.name: arguments.pop(field.name) for field in dataclasses.fields(StoreOptions)}
        return command(stores=StoreOptions(**own), **arguments)

    wrapped: Any = with_stores
    for option, (setting, text) in reversed(_STORES.items()):
        name, text = f"--{option.replace('_', '-')}", f"{text}. Default: {PREFIX}{setting.upper()}."
        wrapped = click.option(name, callback=sound(SETTINGS), help=text)(wrapped)
    result: F = STACK(wrapped)
    return result


def resolve_settings(options: StoreOptions, *, registry: bool = True) -> Settings:
    """Return the settings with the stores in them: those of the stack that `options` name; else the settings, overridden by
    the other options; else those of the stack that `find_stack` finds, which is printed on standard error.

    `registry`: the command needs the table of the registry beside the bucket.
    """
    settings = Settings.from_environment()
    stack = find_stack(options, settings)
    if stack is not None:
        return settings_of_stack(settings, stack)
    named: dict[str, Any] = options.named
    settings = dataclasses.replace(settings, **named)
    needed = ("bucket", "registry_table") if registry else ("bucket",)
    missing = [name for name in needed if getattr(settings, name) is None]
    if missing:
        raise click.UsageError(_nowhere(missing))
    return settings


def find_stack(options: StoreOptions, settings: Settings | None = None) -> str | None:
    """Return the address of the stack to use: that of `--stack`, else of TIDEGATE_STACK, else `LOCAL_STACK` if a stack
    answers there. None if options or settings name the stores, or nothing answers."""
    settings = Settings.from_environment() if settings is None else settings
    if options.stack is not None:
        if options.named:
            raise click.UsageError("--stack names all stores: leave it out, or the options that name them one by one")
        return options.stack
    if options.named:
        return None
    stores = [name for name in ("bucket", "registry_table") if getattr(settings, name) is not None]
    if settings.stack is not None:
        if stores:
            variables = " and ".join(PREFIX + name.upper() for name in stores)
            raise click.UsageError(
                f"TIDEGATE_STACK names all stores, and {variables} too: unset one of them, or give --stack"
            )
        _say_stack(settings.stack, "from TIDEGATE_STACK")
        return settings.stack
    # Partly named stores are not completed with those of another stack.
    if stores or not _answers(LOCAL_STACK):
        return None
    unset = ", as TIDEGATE_STACK is empty" if "TIDEGATE_STACK" in os.environ else ""
    _say_stack(LOCAL_STACK, f"it answers at the default port{unset}")
    return LOCAL_STACK


def _answers(url: str) -> bool:
    """Return whether a stack of this user that reports its stores answers at an address of this machine."""
    # The user did not name this address, so anything else that answers there may belong to others.
    if stack_file.find(url) is None:
        return False
    try:
        return isinstance(read_fleet(url).get("control"), Mapping)
    except UnavailableError:
        return False


def _say_stack(url: str, why: str) -> None:
    """Print on standard error which stack is used, once per command."""
    context = click.get_current_context(silent=True)
    meta = {} if context is None else context.meta
    if _SAID not in meta:
        say(f"using the stack {url}: {why}", err=True)
    meta[_SAID] = True


def _nowhere(missing: list[str]) -> str:
    reason = f"no stack answers at {LOCAL_STACK}"
    try:
        read_fleet(LOCAL_STACK, is_guessed=True)
    except OperatorsOnlyError:
        reason = (
            f"the stack at {LOCAL_STACK} is another user's, or was started with another XDG_RUNTIME_DIR or XDG_CACHE_HOME (name "
            "it with --stack, and set TIDEGATE_OPERATOR_TOKEN to its token)"
        )
    except UnavailableError:
        pass
    words = {"bucket": "the bucket", "registry_table": "the registry's table"}
    options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
    variables = " and ".join(PREFIX + name.upper() for name in missing)
    return (
        f"{reason}, and nothing names {' and '.join(words[name] for name in missing)}: start a "
        f"stack with `tidegate up`, or name one with --stack or TIDEGATE_STACK; else give {options}, or set {variables}"
    )


def settings_of_stack(settings: Settings, url: str) -> Settings:
    """Return the settings with the stores and the table of facts of a stack in place of their own."""
    control = read_fleet(url).get("control")
    if not isinstance(control, Mapping) or not control.get("bucket") or not control.get("registry_table"):
        raise UnavailableError(
            f"{url} does not report its stores; only a stack of `tidegate up` does: name them with --bucket and "
            "--registry-table, or in TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE"
        )
    said = {setting: control.get(name) for name, setting in {**SETTINGS, "facts_table": "facts_table"}.items()}
    checked = Settings.from_environment({PREFIX + name.upper(): str(text) for name, text in said.items() if text})
    changes: dict[str, Any] = {name: getattr(checked, name) for name in said}
    if (found := stack_file.find(url)) is not None:
        changes["management_secret"] = found.management_secret
    return dataclasses.replace(settings, **changes)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def read_fleet(url: str, *, is_guessed: bool = False) -> Mapping[str, Any]:
    """Read the fleet from the gateway or stack at an address: see docs/control-plane.md, "Fleet status".

    A stack of this user on this machine is asked directly, since its gateway may be what does not answer. The operators'
    token of the settings is sent to an address that the user named, never to one that `is_guessed`.
    """
    found = stack_file.find(url)
    if found is not None and found.socket is not None and (fleet := _asked_directly(found.socket)) is not None:
        return fleet
    token = None if found is None and is_guessed else token_of(url)
    return read_operators(url.rstrip("/") + FLEET, token)


def token_of(url: str) -> str | None:
    """Return the operators' token for a gateway or stack: that of this user's stack at the address, else that of the settings."""
    found = stack_file.find(url)
    return Settings.from_environment().operator_token if found is None else found.operator_token


def read_operators(address: str, token: str | None) -> Mapping[str, Any]:
    """Read a path of operators as a JSON object. Raises `UnavailableError`."""
    request = urllib.request.Request(address)  # noqa: S310  # the scheme is checked
    if token is not None:
        # Not to wherever the answer may redirect.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # as above
            found = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise OperatorsOnlyError(
                f"{address} is for operators: set TIDEGATE_OPERATOR_TOKEN to the token of that gateway"
            ) from error
        raise UnavailableError(f"cannot read {address}: {error}; is the gateway running?") from error
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{address} gives no JSON: {error}; is it a gateway?") from error
    except http.client.HTTPException as error:
        raise UnavailableError(f"{address} does not answer as HTTP: {error!r}; is it a gateway?") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(
            f"cannot read {address}: {reason}; is the gateway running, and is this its address? `tidegate up` starts a stack"
        ) from error
    if not isinstance(found, dict):
        raise UnavailableError(f"{address} gives no JSON object; is it a gateway?")
    return found


def _asked_directly(path: Path) -> Mapping[str, Any] | None:
    """Ask the control plane of a stack on this machine; None if it does not answer."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", FLEET)
        fleet = json.load(connection.getresponse())
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return fleet if isinstance(fleet, dict) else None
