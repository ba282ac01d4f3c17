"""`ulvm backup`: a consistent copy of a volume while its writers go on.

    1  look for what killed backups left, in the volume group and in the target directory
    2  quiesce command; freeze, snapshot, thaw; resume command            (backup.snapshot)
    3  copy out of the snapshot, or run the user's program on it          (backup.image, sinks)
       while the COW is watched and extended                              (backup.watch)
    4  the snapshot must still be valid *after* the last byte was read: only then was every
       byte as of step 2
    5  give the files their names                                         (sinks.directory)
    6  remove the snapshot

Whatever fails or interrupts in 2 to 5 undoes what was begun, in reverse order. An overflow is
seen by the watcher, by a read that fails, or in step 4; each time the backup fails with a
sentence that says so, and no file has a name that looks complete.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import ulvm
from ulvm.backup.image import ImageSummary, write_image
from ulvm.backup.interrupts import Interrupted, deferred, interruptible
from ulvm.backup.leftovers import forget, left_behind
from ulvm.backup.manifest import ImageInfo, Manifest, SnapshotInfo, VolumeInfo
from ulvm.backup.pipeline import Stage, no_stage
from ulvm.backup.sinks.directory import BackupFiles, backup_name, remove_litter
from ulvm.backup.snapshot import BackupSnapshot, SnapshotRequest
from ulvm.backup.watch import CowWatcher
from ulvm.errors import NotFoundError, RefusedError, UlvmError, UsageError
from ulvm.lvm import lv as lvm_lv
from ulvm.lvm.session import Session
from ulvm.lvm.snapshot import DEFAULT_CHUNK

__all__ = ["BackupRequest", "CommandFailed", "backup", "clean"]

_MIB = 1 << 20


class CommandFailed(UlvmError):
    """The program of --exec failed; its exit status is the command's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The command failed with status {status}.")
        self.exit_code = status


class BackupRequest(NamedTuple):
    """What the user asks for. Exactly one of `directory` (--to) and `command` (--exec) is set."""

    volume: str
    directory: Path | None = None
    command: str | None = None
    cow_bytes: int | None = None
    """Size of the COW; None to choose."""
    chunk_sectors: int = DEFAULT_CHUNK
    quiesce: str | None = None
    resume: str | None = None
    level: int = 1
    """zstd's."""
    threads: int = 0
    """That compress; 0 for one a core."""
    verify: bool = True


def backup(
    session: Session,
    request: BackupRequest,
    *,
    stage: Stage = no_stage,
) -> Path | None:
    """Do the backup; the path of its manifest, None for a command. `stage` is begun when bytes
    are copied.

    Raises Interrupted when a signal came; its `outcome` says what is left: nothing, unless the
    backup was complete already or its snapshot could not be removed.
    """
    if (request.directory is None) == (request.command is None):
        raise UsageError("One of --to DIR and --exec COMMAND is needed, and only one.")
    session.check_touches()
    if request.directory is not None:
        _prepare_directory(session, request.directory)
    words: frozenset[str] = frozenset()
    if request.command is not None:
        from ulvm.backup.sinks.command import words_in  # not for --to: it takes its time

        words = words_in(request.command)
    _warn_of_leftovers(session, session.resolve_lv(request.volume)[0])
    wanted = SnapshotRequest(
        request.volume,
        cow_bytes=request.cow_bytes,
        chunk_sectors=request.chunk_sectors,
        quiesce=request.quiesce,
        resume=request.resume,
        # Mounting may have to replay a journal, which writes.
        read_only="mount" not in words,
    )
    snapshot = BackupSnapshot(session, wanted)
    files: list[BackupFiles] = []
    try:
        with interruptible(), closing(snapshot), snapshot:
            if request.directory is not None:
                return _to_directory(session, request, snapshot, stage, files)
            assert request.command is not None
            _to_command(session, request.command, words, snapshot)
            return None
    except Interrupted as stop:
        stop.outcome = _outcome(snapshot, files)
        raise


def _outcome(snapshot: BackupSnapshot, files: list[BackupFiles]) -> str:
    """What an interrupted backup leaves."""
    if files and files[0].committed:
        made = f"the backup {files[0].manifest_path} is complete"
        return f"{made}, but its snapshot is left." if snapshot.left else f"{made}."
    if snapshot.left:
        return "no backup was made; its snapshot is left."
    return "no backup was made, and nothing is left of it."


def _warn_of_leftovers(session: Session, vg_name: str) -> None:
    """Say what killed backups left in the VG, and offer to remove it."""
    found = left_behind(session.host, session.last_scan.vg(vg_name))
    if not found:
        return
    # One that ended well since the scan has let go of its lock, but its snapshot is gone too.
    again = session.scan().vg(vg_name)
    for name in (name for name in found if again.lv(name) is not None):
        session.warn(
            f"WARNING: Snapshot {vg_name}/{name} was left behind by a backup that was killed."
        )
        try:
            removed = _clean_one(session, vg_name, name)
        except UlvmError as error:  # in use, say: no reason not to make today's backup
            session.warn(error.message)
            continue
        if not removed:
            session.warn(f'"ulvm backup --clean {vg_name}" removes it.')


def _clean_one(session: Session, vg_name: str, name: str) -> bool:
    """Remove a snapshot that was left behind, if the user says yes. False if not."""
    question = f"Remove snapshot {vg_name}/{name}, left behind by a backup that was killed?"
    if not session.ask(question):
        return False
    from ulvm.backup.sinks.mounted import unmount_left  # not for --to

    with session.lock(vg_name):
        vg = session.scan().vg(vg_name)
        if name not in left_behind(session.host, vg):  # any more, the answer may have taken long
            return True
        unmount_left(session.host, vg_name, name)
        lvm_lv.remove(session, vg_name, name)
        forget(session.host, vg, vg.volume(name))
    session.say(f"Removed snapshot {vg_name}/{name}.")
    return True


def clean(session: Session, vg_name: str | None) -> None:
    """Remove what killed backups left in a VG, or in all, after asking for each. What cannot be
    removed is passed over, and its error raised at the end."""
    session.check_touches()
    scan = session.scan()
    groups = scan.vgs if vg_name is None else (scan.vg(vg_name),)
    found = [(vg.name, name) for vg in groups for name in left_behind(session.host, vg)]
    failed: UlvmError | None = None
    for group, name in found:
        try:
            _clean_one(session, group, name)
        except UlvmError as error:
            if failed is not None:
                session.warn(failed.message)
            failed = error
    if failed is not None:
        raise failed
    if not found:
        session.say("Nothing was left behind.")


def _prepare_directory(session: Session, directory: Path) -> None:
    if not directory.is_dir():
        raise NotFoundError(f"{directory} is not a directory.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise RefusedError(f"{directory} cannot be written to.")
    for name in remove_litter(directory):
        session.say(f"Removed {name}, left behind by a backup that was killed.")


def _to_directory(
    session: Session,
    request: BackupRequest,
    snapshot: BackupSnapshot,
    stage: Stage,
    made: list[BackupFiles],
) -> Path:
    """The path of the manifest. The files are put into `made` when there are any."""
    assert request.directory is not None
    name = backup_name(snapshot.vg_name, snapshot.origin_name, snapshot.time)
    with ExitStack() as stack:
        with deferred():  # between their making and their removal's standing by nothing may come
            files = stack.enter_context(BackupFiles(request.directory, name))
            made.append(files)
        begun = time.monotonic()
        with _watched(session, snapshot) as watcher, stage("Copying") as progress:

            def show(done: int, total: int) -> None:
                if watcher.overflowed:
                    raise _overflow(snapshot)
                watcher.check()
                progress(done, total)

            summary = write_image(
                snapshot.open_device,
                files.fd,
                files.image_path.name,
                level=request.level,
                threads=request.threads or os.cpu_count() or 1,
                verify=request.verify,
                progress=show,
            )
        seconds = time.monotonic() - begun
        manifest = _manifest(request, snapshot, watcher, files.image_path.name, summary)
        files.commit(manifest)
    _say_copied(session, request, summary, seconds)
    _say_cow(session, watcher)
    session.say(f"Backup of {snapshot.name_of_origin} is {files.manifest_path}.")
    return files.manifest_path


def _to_command(
    session: Session, command: str, words: frozenset[str], snapshot: BackupSnapshot
) -> None:
    from ulvm.backup.sinks.command import run_command  # not for --to
    from ulvm.backup.sinks.mounted import mounted  # not for --to

    environment = snapshot.environment
    values = {"nbd": snapshot.nbd_uri}
    with _watched(session, snapshot) as watcher, ExitStack() as stack:
        if "device" in words or "mount" in words:
            values["device"] = str(snapshot.device_path())
        if "mount" in words:
            where = mounted(
                session.host,
                snapshot.vg_name,
                snapshot.name,
                snapshot.device_path(),
                session.warn,
            )
            values["mount"] = str(stack.enter_context(where))
        status = run_command(command, values, environment)
    # An overflow explains a failure of the command, so it was looked for first.
    if status:
        raise CommandFailed(status)
    _say_cow(session, watcher)


@contextmanager
def _watched(session: Session, snapshot: BackupSnapshot) -> Iterator[CowWatcher]:
    """Watch the COW during the block. RefusedError if it overflowed, also in place of the error
    that the block then met. An error of the last look is raised: who cannot be
    asked has not said yes."""
    watcher = CowWatcher(
        snapshot.status, snapshot.extend, limit=snapshot.enough_bytes, say=session.say
    )
    try:
        with watcher:
            yield watcher
    except UlvmError:
        with suppress(UlvmError):  # the daemon is gone, say: the block's error tells
            watcher.look()
        if watcher.overflowed:
            raise _overflow(snapshot) from None
        raise
    if not watcher.overflowed:
        watcher.look()
    if watcher.overflowed:
        raise _overflow(snapshot)
    watcher.check()


def _overflow(snapshot: BackupSnapshot) -> RefusedError:
    return RefusedError(
        f"Snapshot {snapshot.vg_name}/{snapshot.name} overflowed: more was written to "
        f"{snapshot.name_of_origin} than its COW could hold. The backup failed and nothing "
        "of it is kept; give it more room (--size, or vgextend)."
    )


def _manifest(
    request: BackupRequest,
    snapshot: BackupSnapshot,
    watcher: CowWatcher,
    file_name: str,
    summary: ImageSummary,
) -> Manifest:
    return Manifest(
        tool=f"ulvm {ulvm.__version__}",
        time=snapshot.time,
        volume=VolumeInfo(
            snapshot.vg_name, snapshot.origin_name, snapshot.vg_uuid, snapshot.origin_uuid
        ),
        image=ImageInfo(file_name, summary.digest, summary.compressed_sha256, summary.index),
        snapshot=SnapshotInfo(
            watcher.last.total,
            watcher.peak,
            snapshot.waited_seconds * 1000,
            request.quiesce is not None,
            snapshot.frozen,
            snapshot.synced,
        ),
        verified=request.verify,
    )


def _say_copied(
    session: Session, request: BackupRequest, summary: ImageSummary, seconds: float
) -> None:
    size, compressed = summary.index.raw_size, summary.index.compressed_size
    how = "read back and verified" if request.verify else "not verified"
    session.say(
        f"Copied {size / _MIB:.2f} MiB into {compressed / _MIB:.2f} MiB in {seconds:.1f} s, {how}."
    )


def _say_cow(session: Session, watcher: CowWatcher) -> None:
    peak, total = watcher.peak, watcher.last.total
    session.say(
        f"Writers changed {peak / _MIB:.2f} MiB meanwhile: "
        f"the snapshot became {peak / total if total else 0:.1%} full."
    )
