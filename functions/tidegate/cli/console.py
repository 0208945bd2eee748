"""`tidegate console`: the link that opens the console."""

from __future__ import annotations

from http import HTTPStatus
from urllib.error import HTTPError
from urllib.parse import quote

import click

from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.stacks import LOCAL_STACK, STACK, StoreOptions, find_stack, read_operators, token_of
from tidegate.errors import UnavailableError

PAGE = "/console"
OVERVIEW = "/v1/overview"


@click.command()
@STACK
@AS_JSON
def console(stack: str | None, as_json: bool) -> None:
    """Print the link that opens the console of a running stack.

    The link has the operators' token behind `#`, where a browser keeps it to itself. Anyone with the link can read everything that the
    console shows, so do not pass it on. Exit code 1: no console answers there.
    """
    found = find_stack(StoreOptions(stack=stack))
    if found is None:
        # The process that listens at the default port may be another's, so it is not sent the token of the settings.
        raise UnavailableError(
            f"no stack of this user answers at {LOCAL_STACK}: start one with `tidegate up`, or name it with --stack"
        )
    address = found.rstrip("/")
    token = token_of(address)
    if token is None:
        raise UnavailableError(
            f"the operators' token of {address} is not known: it is not a stack that this user started on this machine; set "
            "TIDEGATE_OPERATOR_TOKEN to it"
        )
    try:
        # The link is printed only if it works.
        read_operators(address + OVERVIEW, token)
    except UnavailableError as error:
        if isinstance(error.__cause__, HTTPError) and error.__cause__.code == HTTPStatus.NOT_FOUND:
            raise UnavailableError(
                f"{address} has no console: TIDEGATE_CONSOLE is false there, or it is no local stack"
            ) from error
        raise
    # A token of the settings may have any printable character.
    link = f"{address}{PAGE}#token={quote(token, safe='')}"
    if as_json:
        print_json({"stack": address, "link": link})
    else:
        click.echo(link)
