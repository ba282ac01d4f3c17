"""Small commands that tell of the program and the host: version, formats, segtypes, tags, systemid,
devtypes, lastlog, and what LVM has given up."""

from __future__ import annotations

import os

import click

import ulvm
from ulvm.cli.arguments import select_option
from ulvm.cli.common_options import common_options
from ulvm.cli.context import Context
from ulvm.errors import RefusedError

__all__ = [
    "COMPATIBLE_VERSION",
    "DRIVER_VERSION",
    "LIBRARY_VERSION",
    "devtypes",
    "formats",
    "lastlog",
    "lvmchange",
    "lvmsadc",
    "lvmsar",
    "pvdata",
    "segtypes",
    "systemid",
    "tags",
    "version",
    "version_lines",
    "vgconvert",
]

COMPATIBLE_VERSION = "2.03.16(2) (2022-05-18)"
"""The LVM2 that ulvm does as; scripts look at it."""
LIBRARY_VERSION = "1.02.185 (2022-05-18)"
DRIVER_VERSION = "4.47.0"
"""Of the kernel whose device-mapper ours does as."""
_SEGMENT_TYPES = ("linear", "striped", "zero", "error", "snapshot")


def version_lines() -> list[str]:
    """As LVM says it, and our own."""
    return [
        f"LVM version:     {COMPATIBLE_VERSION}",
        f"Library version: {LIBRARY_VERSION}",
        f"Driver version:  {DRIVER_VERSION}",
        f"ulvm version:    {ulvm.__version__}",
    ]


@click.command()
@common_options
@click.pass_obj
def version(context: Context) -> None:
    """Show the version, and the version of LVM2 that ulvm does as."""
    context.show("\n".join(version_lines()))


@click.command()
@common_options
@click.pass_obj
def formats(context: Context) -> None:
    """List the metadata formats."""
    context.show("lvm2")


@click.command()
@common_options
@click.pass_obj
def segtypes(context: Context) -> None:
    """List the segment types that volumes are made of."""
    context.show("\n".join(_SEGMENT_TYPES))


@click.command()
@common_options
@click.pass_obj
def tags(context: Context) -> None:
    """List the tags of this host."""
    from ulvm.vgstore.settings import host_tags

    context.show("\n".join(host_tags(context.host.config.tree, os.uname().nodename)))


@click.command()
@common_options
@click.pass_obj
def systemid(context: Context) -> None:
    """Show the system ID of this host."""
    from ulvm.vgstore.system_id import host_system_id

    found, warnings = host_system_id(context.host.config)
    for text in warnings:
        context.console.warn(text)
    context.show(f"system ID: {found}")


@click.command()
@click.option("--noheadings", is_flag=True, help="No headings.")
@common_options
@click.pass_obj
def devtypes(context: Context, noheadings: bool) -> None:
    """List the types of block devices that LVM knows."""
    from ulvm.report.devtypes import device_type_lines

    context.show("\n".join(device_type_lines(headings=not noheadings)))


@click.command()
@select_option
@common_options
@click.pass_obj
def lastlog(context: Context, select: str | None) -> None:
    """Show the log of the shell's last command (log/report_command_log)."""
    if context.last_log is None:
        raise RefusedError("No log report stored.")
    from ulvm.cli.report_options import Output

    output = Output.of_log(context, select=select or "all")
    output.log.entries = [*context.last_log]
    output.finish()


def _given_up(name: str, instead: str, why: str = "") -> click.Command:
    @click.command(name, hidden=True, context_settings={"ignore_unknown_options": bool(why)})
    @click.argument("words", nargs=-1)
    @common_options
    def command(words: tuple[str, ...]) -> None:
        """LVM2 has given this command up."""
        first = why or f"There's no '{name}' command in LVM2."
        raise RefusedError(f"{first}\n{instead}")

    return command


lvmchange = _given_up(
    "lvmchange", "Use 'dmsetup' commands to reset the kernel device-mapper driver."
)
vgconvert = _given_up(
    "vgconvert",
    "Use a previous version of lvm to convert the lvm1 format to lvm2.",
    "The vgconvert command has been removed along with the lvm1 format.",
)
lvmsadc = _given_up("lvmsadc", "Please use the superior 'dmstats' facilities instead.")
lvmsar = _given_up("lvmsar", "Please use the superior 'dmstats' facilities instead.")
pvdata = _given_up(
    "pvdata", "Use lvs, pvs, vgs instead; or use vgcfgbackup and read the text file backup."
)
