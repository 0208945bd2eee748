"""Which stores a command works on: as its options say, as a running stack says, or as the settings say.

A command that works on the stores takes them so::

    @click.command()
    @STORE_OPTIONS
    def command(stores: StoreOptions) -> None:
        settings = resolve_settings(stores)
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidegate.errors import OperatorsOnlyError, SettingsError, UnavailableError
from tidegate.settings import PREFIX, Settings

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Callable[..., Any])

LOCAL_STACK = "http://127.0.0.1:8080"
"""Where `tidegate up` answers unless an option says otherwise."""

FLEET = "/v1/fleet"
_SAID = "tidegate.stack_said"
TIMEOUT_S = 5.0

SETTINGS = {
    "endpoint_url": "aws_endpoint_url",
    "bucket": "bucket",
    "registry_table": "registry_table",
    "region": "aws_region",
}
"""The setting that says the same as an option, or as an entry of `control` in a stack's `/v1/fleet`."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a command's options say about the stores; None where they say nothing.

    Attributes:
        stack: address of a running stack, whose stores are meant.
        endpoint_url: address of S3 and DynamoDB.
        bucket: S3 bucket of the models and the bundles.
        registry_table: DynamoDB table of the registry.
        region: AWS region.
    """

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
    """What checks an option's text by the setting that it is laid over, given the setting of each option."""

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
    """The text of an option that is the address of a gateway."""
    if text is not None and not text.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} is no http:// or https:// address")
    return text


STACK = click.option(
    "--stack",
    callback=http_address,
    help=f"Running stack whose stores are meant; else TIDEGATE_STACK, else {LOCAL_STACK} if one answers there.",
)

_OPTIONS = (
    STACK,
    click.option(
        "--endpoint-url", callback=sound(SETTINGS), help="Address of S3 and DynamoDB; else TIDEGATE_AWS_ENDPOINT_URL."
    ),
    click.option("--bucket", callback=sound(SETTINGS), help="S3 bucket of models and bundles; else TIDEGATE_BUCKET."),
    click.option(
        "--registry-table", callback=sound(SETTINGS), help="Table of the registry; else TIDEGATE_REGISTRY_TABLE."
    ),
    click.option("--region", callback=sound(SETTINGS), help="AWS region; else TIDEGATE_AWS_REGION."),
)


def STORE_OPTIONS(command: F) -> F:  # noqa: N802  # stands among click's decorators, which are constants here
    """Give a command the options that name the stores; it gets them as its argument `stores`."""

    @functools.wraps(command)
    def with_stores(**arguments: Any) -> Any:
        own = {field.name: arguments.pop(field.name) for field in dataclasses.fields(StoreOptions)}
        return command(stores=StoreOptions(**own), **arguments)

    wrapped: Any = with_stores
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def resolve_settings(options: StoreOptions, *, registry: bool = True) -> Settings:
    """The settings with the stores in them: those of the stack that `options` name; else what the other options name,
    laid over the settings; else those of the stack that `find_stack` finds.

    A stack that no option names is named on standard error.

    Args:
        options: those that the command was given.
        registry: whether the command needs the registry's table beside the bucket.

    Raises:
        click.UsageError: nothing names the stores, or two things do; it says all ways to name them.
        UnavailableError: the stack that was named does not answer.
        SettingsError: a setting, or what a stack says of its stores, is malformed.
    """
    settings = Settings.from_environment()
    stack = find_stack(options, settings)
    if stack is not None:
        return settings_of_stack(settings, stack)
    named: dict[str, Any] = options.named
    settings = dataclasses.replace(settings, **named)
    missing = [
        name
        for name in ("bucket", "registry_table")
        if getattr(settings, name) is None and (registry or name == "bucket")
    ]
    if not missing:
        return settings
    raise click.UsageError(_nowhere(missing))


def find_stack(options: StoreOptions, settings: Settings | None = None) -> str | None:
    """The address of the stack that a command means: that of `--stack`, else of TIDEGATE_STACK, else `LOCAL_STACK` where a
    stack answers there. None where options or settings name the stores, or nothing answers.

    Raises:
        click.UsageError: a stack and stores are named at once.
        SettingsError: a setting is malformed.
    """
    settings = Settings.from_environment() if settings is None else settings
    if options.stack is not None:
        if options.named:
            raise click.UsageError("--stack names all stores: leave it, or the options that name them one by one, out")
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
    # What was said by half is not filled up with another stack's.
    if stores or not _answers(LOCAL_STACK):
        return None
    unset = ", as TIDEGATE_STACK is empty" if "TIDEGATE_STACK" in os.environ else ""
    _say_stack(LOCAL_STACK, f"it answers at the default port{unset}")
    return LOCAL_STACK


def _answers(url: str) -> bool:
    """Whether a stack of this user that tells its stores answers at an address of this machine."""
    from tidegate import stack_file

    # Whatever else answers there was not named, and may be anybody's.
    if stack_file.find(url) is None:
        return False
    try:
        return isinstance(read_fleet(url).get("control"), Mapping)
    except UnavailableError:
        return False


def _say_stack(url: str, why: str) -> None:
    """Say on standard error which stack is used, once a command."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.setdefault(_SAID, False):
        click.echo(f"using the stack {url}: {why}", err=True)
    if context is not None:
        context.meta[_SAID] = True


def _no_stack() -> str:
    """Why the stack at the default port is not the one that is meant."""
    try:
        read_fleet(LOCAL_STACK, is_guessed=True)
    except OperatorsOnlyError:
        return (
            f"the stack at {LOCAL_STACK} is another user's, or was started with another XDG_RUNTIME_DIR or XDG_CACHE_HOME (name "
            "it with --stack, and set TIDEGATE_OPERATOR_TOKEN to its token)"
        )
    except UnavailableError:
        pass
    return f"no stack answers at {LOCAL_STACK}"


def _nowhere(missing: list[str]) -> str:
    words = {"bucket": "the bucket", "registry_table": "the registry's table"}
    options = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
    variables = " and ".join(PREFIX + name.upper() for name in missing)
    return (
        f"{_no_stack()}, and nothing names {' and '.join(words[name] for name in missing)}: start a "
        f"stack with `tidegate up`, or name one with --stack or TIDEGATE_STACK; else give {options}, or set {variables}"
    )


def settings_of_stack(settings: Settings, url: str) -> Settings:
    """The settings with the stores of a stack, and its table of facts, in place of all that they name.

    Raises:
        UnavailableError: nothing answers at the address, or it does not tell its stores.
        SettingsError: what it tells is malformed.
    """
    from tidegate import stack_file

    control = read_fleet(url).get("control")
    if not isinstance(control, Mapping) or not control.get("bucket") or not control.get("registry_table"):
        raise UnavailableError(
            f"{url} does not tell its stores, as only a stack of `tidegate up` does: name them with --bucket and "
            "--registry-table, or in TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE"
        )
    said = {setting: control.get(name) for name, setting in SETTINGS.items()} | {
        "facts_table": control.get("facts_table")
    }
    checked = Settings.from_environment({PREFIX + name.upper(): str(text) for name, text in said.items() if text})
    changes: dict[str, Any] = {name: getattr(checked, name) for name in said}
    if (found := stack_file.find(url)) is not None:
        changes["management_secret"] = found.management_secret
    return dataclasses.replace(settings, **changes)


def read_fleet(url: str, *, is_guessed: bool = False) -> Mapping[str, Any]:
    """The fleet as the gateway or stack at an address tells it: see docs/control-plane.md, "Fleet status".

    A stack of this user on this machine is asked itself, as its gateway may be the one that does not answer. The token that
    the user has set is sent to an address that the user has named, and to none that `is_guessed`.

    Raises:
        UnavailableError: nothing answers there, or not with a fleet.
        SettingsError: a setting is malformed.
    """
    import http.client
    import json
    import urllib.error
    import urllib.request
    from http import HTTPStatus

    from tidegate import stack_file

    found = stack_file.find(url)
    if found is not None and found.socket is not None and (fleet := _asked_itself(found.socket)) is not None:
        return fleet
    address = url.rstrip("/") + FLEET
    request = urllib.request.Request(address)  # noqa: S310  # the scheme is checked
    token = found.operator_token if found is not None else None
    if found is None and not is_guessed:
        token = Settings.from_environment().operator_token
    if token is not None:
        # Not to wherever the answer may redirect.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # as above
            fleet = json.load(response)
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
    if not isinstance(fleet, dict):
        raise UnavailableError(f"{address} gives no fleet; is it a gateway?")
    return fleet


def _asked_itself(socket: Path) -> Mapping[str, Any] | None:
    """What the control plane of a stack on this machine says; None where it does not answer."""
    import http.client
    import json
    from socket import AF_UNIX, SOCK_STREAM
    from socket import socket as new_socket

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = new_socket(AF_UNIX, SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(str(socket))

    connection = Connection("localhost", timeout=TIMEOUT_S)
    try:
        connection.request("GET", FLEET)
        fleet = json.load(connection.getresponse())
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return fleet if isinstance(fleet, dict) else None
