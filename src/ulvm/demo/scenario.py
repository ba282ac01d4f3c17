"""What `ulvm demo` does, step by step. Every command is a real one, run as a user would.

    pool.img -> VG demo -> LV bank, written all the while
        backup under load -> restored to LV restored, checked
        snapshot -> an accident -> merged back, checked

Everything lies in one directory; the backup and the pool stay there, and nothing else stays:
no mount, no loop device, no daemon.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ulvm.backup.interrupts import deferred, interruptible
from ulvm.demo.banks import Bank, BlockBank, FileSystemBank, why_no_file_system
from ulvm.demo.host import DemoHost, Screen
from ulvm.demo.ledger import ACCOUNTS, OPENING_BALANCE, State
from ulvm.errors import UlvmError

__all__ = ["run"]

_VOLUME = "demo/bank"
_RESTORED = "demo/restored"


def run(base: Path, screen: Screen, *, bare_blocks: bool = False) -> None:
    """The whole demonstration in the directory `base`. UlvmError when something is not as it
    should be; whatever was started is ended. `bare_blocks`: without a file system, even where
    one could be mounted."""
    why = "as was asked for" if bare_blocks else why_no_file_system()
    host = DemoHost(base, screen)
    with interruptible(), ExitStack() as stack:
        stack.callback(_tidy, host)
        bank: Bank = BlockBank(host) if why else FileSystemBank(host)
        if why:
            screen.fact(f"The demonstration runs on bare blocks, over NBD: {why}.")
        _make_pool(host)
        stack.callback(_stop, bank)
        _open_bank(bank)
        backup = _backup_under_load(bank)
        _go_on(bank)
        _restore(bank, backup)
        _roll_back(bank)
        bank.stop()
    screen.heading("Done")
    screen.fact("Mounts and daemon are gone. What is left:")
    screen.output(
        f"  {base / 'backups'}/   the backup: zstd image and JSON manifest\n"
        f"  {base / 'pool.img'}   the volume group\n"
    )
    screen.output(
        f"  rm -r {base}   removes it all; to look around instead:\n"
        f"  export ULVM_SYSTEM_DIR={base / 'etc'} ULVM_RUN_DIR={host.run_dir}\n"
        "  ulvm vgchange -ay demo\n"
    )


def _quietly(step: Callable[[], object], host: DemoHost) -> None:
    """A step of tidying up; a failure is shown and the next step done all the same."""
    try:
        step()
    except UlvmError as error:
        host.screen.fact(error.message, good=False)


def _stop(bank: Bank) -> None:
    with deferred():
        _quietly(bank.stop, bank.host)
        for volume in (_RESTORED, _VOLUME):
            _quietly(lambda volume=volume: bank.let_go(volume), bank.host)  # type: ignore[misc]
    bank.progress.close()
    (bank.host.base / "progress").unlink(missing_ok=True)


def _tidy(host: DemoHost) -> None:
    with deferred():
        if host.run_dir.exists():
            _quietly(lambda: host.ulvm("vgchange -an demo", quietly=True), host)
            _quietly(lambda: host.ulvm("daemon stop", quietly=True), host)


def _make_pool(host: DemoHost) -> None:
    host.screen.heading("A volume group in a file")
    host.shell("truncate -s 3G pool.img")
    host.ulvm("pvcreate pool.img")
    host.ulvm("vgcreate demo pool.img")
    host.ulvm("lvcreate -n bank -L 1G demo")


def _open_bank(bank: Bank) -> None:
    screen = bank.host.screen
    screen.heading("A bank on it, with a writer that never rests")
    what = bank.open(_VOLUME)
    bank.start(_VOLUME)
    screen.fact(f"{what}: {ACCOUNTS} accounts with {OPENING_BALANCE} each.")
    screen.fact("A writer process moves money between them, one durable transfer after the other.")


def _backup_under_load(bank: Bank) -> Path:
    host, screen = bank.host, bank.host.screen
    screen.heading("A backup, while it writes")
    directory = host.base / "backups"
    directory.mkdir()
    before = bank.progress.read()
    bank.progress.reset_longest()
    host.ulvm(f"backup {_VOLUME} --to backups")
    after = bank.progress.read()
    screen.fact(
        f"Meanwhile the writer made {after.transfers - before.transfers} transfers "
        f"({(after.written - before.written) >> 10} KiB); the slowest took "
        f"{after.longest_seconds * 1000:.0f} ms."
    )
    (manifest,) = directory.glob("*.json")
    snapshot = json.loads(manifest.read_bytes())["snapshot"]
    screen.fact(
        f"Writers waited {snapshot['writers_waited_ms']:.1f} ms for the snapshot; its COW became "
        f"{snapshot['cow_peak'] / snapshot['cow_size']:.1%} full.",
        good=True,
    )
    if after.transfers == before.transfers:
        raise UlvmError("The writer stood still during the backup.")
    return manifest


def _go_on(bank: Bank) -> None:
    bank.wait_for(bank.progress.read().transfers + 200)
    bank.host.screen.fact("The writer goes on.")


def _check(screen: Screen, name: str, state: State) -> None:
    """Show what a bank says of itself; UlvmError if money is missing."""
    screen.fact(
        f"{name}: integrity {state.integrity}, money {state.money:,}, "
        f"{state.transfers:,} transfers",
        good=state.right,
    )
    if not state.right:
        raise UlvmError(f"{name} is not as it should be.")


def _restore(bank: Bank, manifest: Path) -> None:
    host, screen = bank.host, bank.host.screen
    screen.heading("The backup, restored to another volume")
    host.ulvm(f"verify {manifest.relative_to(host.base)}")
    host.ulvm(f"restore {manifest.relative_to(host.base)} {_RESTORED}")
    state = bank.look(_RESTORED)
    _check(screen, "The restored bank, as of the snapshot", state)
    bank.let_go(_RESTORED)


def _roll_back(bank: Bank) -> None:
    host, screen = bank.host, bank.host.screen
    screen.heading("An accident, and back by merge")
    host.ulvm(f"lvcreate -s -n before -L 256M {_VOLUME}")
    screen.fact(f"The accident: {bank.accident(_VOLUME)}")
    bank.wait_for(bank.progress.read().transfers + 50)
    bank.stop()
    host.ulvm("lvs")
    spoiled = bank.look(_VOLUME)
    screen.fact(f"The live bank: money {spoiled.money:,}", good=False)
    if spoiled.right:
        raise UlvmError("The accident did nothing.")
    bank.let_go(_VOLUME)
    host.ulvm("lvconvert --merge demo/before")
    _check(screen, "The live bank", bank.look(_VOLUME))
    bank.let_go(_VOLUME)
