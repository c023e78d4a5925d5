"""How the other commands find a running gateway: through what `forgegate serve` left in the home folder."""

from __future__ import annotations

import argparse
import os

from backends.admin_client import AdminClient
from gateway.exits import CommandError
from gateway.home import VARIABLE, Home

TOKEN_VARIABLE = "FORGEGATE_ADMIN_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin-url",
        metavar="URL",
        help=f"admin API of the gateway (default: the one running here); its token in {TOKEN_VARIABLE}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def admin_client(args: argparse.Namespace) -> AdminClient:
    """Raises CommandError when no gateway runs here and none was named."""
    home = Home.from_env()
    url = args.admin_url
    if url is None:
        running = home.running()
        if running is None:
            raise CommandError(
                f"no forgegate is running with home {home.root}; start one with `forgegate serve`, "
                f"or name one with --admin-url (and its token in {TOKEN_VARIABLE}), or set {VARIABLE}"
            )
        url = running.admin_url
    try:
        token = os.environ.get(TOKEN_VARIABLE) or home.read_token()
    except OSError as exc:
        raise CommandError(f"{home.token_file}: {exc.strerror}; set {TOKEN_VARIABLE}") from exc
    if not token:
        raise CommandError(
            f"no admin token for {url}: set {TOKEN_VARIABLE} to what that gateway's admin-token file holds"
        )
    return AdminClient(url, token)
