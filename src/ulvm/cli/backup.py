"""`ulvm backup`, `ulvm restore` and `ulvm verify`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ulvm.backup.interrupts import Interrupted
from ulvm.backup.job import BackupRequest, clean
from ulvm.backup.job import backup as run_backup
from ulvm.backup.pipeline import Progress
from ulvm.cli.common_options import own_options
from ulvm.cli.context import Context
from ulvm.errors import UsageError
from ulvm.lvm.names import vg_name
from ulvm.lvm.sizes import parse_sectors
from ulvm.lvm.snapshot import DEFAULT_CHUNK
from ulvm.metadata.cow import check_chunk_size
from ulvm.units import SECTOR

__all__ = ["backup", "restore", "verify"]

_THREADS = click.option(
    "--threads", type=click.IntRange(0, 64), default=0, help="Threads that compute; 0 = one a core."
)


@contextmanager
def _stage(name: str) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere. It vanishes when the stage is over."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("  {task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _interrupts(what: str) -> Iterator[None]:
    """A signal ends the command as a shell expects it, with a sentence: the exception's own, or
    `what`."""
    try:
        yield
    except Interrupted as stop:
        click.echo(f"  Interrupted ({stop}): {stop.outcome or what}", err=True)
        raise click.exceptions.Exit(stop.exit_code) from None  # not the shell's end


@click.command()
@click.argument("volume", metavar="VG/LV", required=False)
@click.option("--to", "directory", type=click.Path(path_type=Path), help="Write an image into DIR.")
@click.option(
    "--exec", "command", help="Run a program on the snapshot: {mount}, {device}, {nbd} name it."
)
@click.option("--size", "-L", "cow_size", help="Size of the snapshot's COW, as for lvcreate -L.")
@click.option("--chunksize", "-c", "chunk_size", help="Chunk size of the snapshot (default 4k).")
@click.option("--quiesce", help="Command to run before the snapshot is taken.")
@click.option("--resume", help="Command to run right after it; runs whatever happens.")
@click.option("--level", type=click.IntRange(1, 19), default=1, help="zstd level (default 1).")
@_THREADS
@click.option("--no-verify", is_flag=True, help="Do not read back what was written.")
@click.option("--clean", "cleaning", is_flag=True, help="Remove what killed backups left behind.")
@own_options
@click.pass_obj
def backup(
    context: Context,
    volume: str | None,
    directory: Path | None,
    command: str | None,
    cow_size: str | None,
    chunk_size: str | None,
    quiesce: str | None,
    resume: str | None,
    level: int,
    threads: int,
    no_verify: bool,
    cleaning: bool,
) -> None:
    """Back up a volume, consistent to one instant, while it is written.

    A snapshot is taken (mounted file systems are frozen for it, or synced where they cannot be),
    copied into DIR as a compressed image with a manifest, verified and removed.

    \b
    ulvm backup vg/db --to /backups
    ulvm backup vg/db --exec 'tar -C {mount} -czf db.tgz .'
    ulvm backup --clean vg
    """
    session = context.session()
    if cleaning:
        clean(session, None if volume is None else vg_name(volume, session.host.run_dir))
        return
    if volume is None:
        raise UsageError("Please name the volume to back up: VG/LV.")
    chunk = DEFAULT_CHUNK
    if chunk_size is not None:
        chunk = parse_sectors(chunk_size, "--chunksize", unit="k")
        check_chunk_size(chunk)
    request = BackupRequest(
        volume,
        directory=directory,
        command=command,
        cow_bytes=None if cow_size is None else parse_sectors(cow_size, "--size") * SECTOR,
        chunk_sectors=chunk,
        quiesce=quiesce,
        resume=resume,
        level=level,
        threads=threads,
        verify=not no_verify,
    )
    with _interrupts("no backup was made, and nothing is left of it."):
        run_backup(session, request, stage=_stage)


@click.command()
@click.argument("path", metavar="BACKUP", type=click.Path(path_type=Path))
@click.argument("volume", metavar="VG/LV")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing volume.")
@_THREADS
@own_options
@click.pass_obj
def restore(context: Context, path: Path, volume: str, force: bool, threads: int) -> None:
    """Restore BACKUP to VG/LV, which is created, and read it back.

    BACKUP is the manifest, the image, or a directory with one backup in it. A volume that is
    overwritten may have snapshots, or be one: if one of them has no room for what changes, you are
    asked, since it would be lost.
    """
    from ulvm.backup.restoring import restore as run_restore  # Not for a backup.

    session = context.session()
    with _interrupts("the volume is not restored."):
        run_restore(session, path, volume, force=force, stage=_stage, threads=threads)


@click.command()
@click.argument("path", metavar="BACKUP", type=click.Path(path_type=Path))
@_THREADS
@own_options
@click.pass_obj
def verify(context: Context, path: Path, threads: int) -> None:
    """Prove that BACKUP is whole: all is read, and the digests of file and volume compared."""
    from ulvm.backup.restoring import verify_backup

    session = context.session()
    with _interrupts("nothing was proved."):
        verify_backup(session, path, stage=_stage, threads=threads)
