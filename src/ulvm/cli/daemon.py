"""`ulvm daemon`: the process that holds the active volumes."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.daemon.client import DaemonClient, connect
from ulvm.errors import DeviceError, NotFoundError
from ulvm.mounts import mount_at
from ulvm.units import SECTOR, display_size

__all__ = ["daemon"]


@click.group()
def daemon() -> None:
    """Start, stop and look at the daemon. The first activation starts it by itself."""


def _running(context: Context) -> DaemonClient | None:
    host = context.host
    return connect(host.run_dir, start=False, system_dir=host.system_dir)


@daemon.command()
@own_options
@click.pass_obj
def start(context: Context) -> None:
    """Start the daemon if it does not run. --config counts for its life; that of another command
    which finds none running does not."""
    host = context.host
    client = connect(host.run_dir, start=True, system_dir=host.system_dir, overrides=host.overrides)
    assert client is not None
    context.console.say(f"The daemon runs, process {client.daemon_status()['pid']}.")


@daemon.command()
@click.option("-f", "--force", is_flag=True, help="Also while volumes are in use.")
@own_options
@click.pass_obj
def stop(context: Context, force: bool) -> None:
    """Deactivate all volumes and stop the daemon. Refused while volumes are in use.

    What was written and the disks refuse waits in the run directory for the next daemon; that is
    said, and the exit code is 5.
    """
    client = _running(context)
    if client is None:
        context.console.say("The daemon does not run.")
        return
    left = client.stop(force=force)
    if left:
        run_dir = context.host.run_dir
        raise DeviceError(
            f"The daemon has stopped, but could not take down {', '.join(left)}. What was written "
            f"there and is on no disk waits in {run_dir} for the next daemon, until the machine "
            f"starts anew. See {run_dir / 'ulvmd.log'}."
        )
    context.console.say("The daemon has stopped; all volumes are inactive.")


@daemon.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@own_options
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show the process, its sockets and what is active."""
    client = _running(context)
    if client is None:
        raise NotFoundError("The daemon does not run; it starts with the first activation.")
    found = client.daemon_status()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        context.console.say(line)


def _tree(found: dict[str, Any]) -> str:
    if not found["dev"]:
        return f"no FUSE: {found['fuse_problem']}"
    if mount_at(os.path.realpath(found["dev"])) is None:
        return (
            f"{found['dev']} is not mounted here: the daemon is in another mount namespace, "
            "a service's perhaps; stop it and start it here"
        )
    return str(found["dev"])


def _lines(found: dict[str, Any]) -> list[str]:
    hours, rest = divmod(int(found["uptime"]), 3600)
    lines = [
        f"Process    {found['pid']}, up {hours}:{rest // 60:02d}:{rest % 60:02d}",
        f"Volumes    {_tree(found)}",
        f"NBD        {found['nbd']}" + "".join(f", {where}" for where in found["tcp"]),
        f"Log        {found['log']}",
    ]
    for volume in found["volumes"]:
        if volume["name"].startswith("mapper/"):
            continue
        words = [f"  {volume['name']}", display_size(volume["size"] // SECTOR)]
        words.append("open" if volume["name"] in found["in_use"] else "not open")
        if volume["full"] is not None:
            words.append(f"snapshot {100 * volume['full']:.2f}% full")
        if volume["suspended"]:
            words.append("SUSPENDED")
        lines.append(", ".join(words))
    return lines


@daemon.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=10809, help="0: any (default 10809)."
)
@click.option("--address", default="127.0.0.1", help="Of which interface (default 127.0.0.1).")
@click.option(
    "--tls-certificates",
    type=click.Path(file_okay=False),
    help="Folder with ca-cert.pem, server-cert.pem and server-key.pem: only clients with a "
    "certificate of that authority are served, by TLS.",
)
@click.option("--force", is_flag=True, help="Also without TLS on an address others can reach.")
@own_options
@click.pass_obj
def listen(
    context: Context, port: int, address: str, tls_certificates: str | None, force: bool
) -> None:
    """Serve NBD on a TCP port as well, until the daemon stops.

    \b
    ulvm daemon listen --address 0.0.0.0 --tls-certificates /etc/ulvm/pki
    nbdcopy 'nbds://host/vg/lv?tls-certificates=/etc/pki/client' lv.img
    """
    client = context.session().dm
    folder = None if tls_certificates is None else os.path.abspath(tls_certificates)
    chosen = client.listen(address, port, tls_certificates=folder, force=force)
    tls = " with TLS" if folder else ""
    context.console.say(f"Serving NBD{tls} on {address} port {chosen}.")
