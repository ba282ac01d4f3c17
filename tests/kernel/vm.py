"""The judge: Debian's kernel with its device-mapper and LVM2, in a virtual machine.

QEMU boots the kernel with an initramfs of busybox, lvm2 and dmsetup of this machine. The commands
run one after the other as `sh -c`; what each printed and its exit code come back as a tar archive
on a drive of their own. No KVM is needed: emulated, a boot takes some seconds.

The kernel's package is downloaded once by apt-get and unpacked below .cache/, never installed. The
machine's own lvm2, dmsetup and busybox-static packages must be installed.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Outcome", "kernel_release", "run"]

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kernel"

_META_PACKAGE = "linux-image-cloud-amd64"

# In the order they are loaded in; what the kernel has built in is left out.
_MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "virtio_blk", "dm-mod", "dm-bufio", "dm-snapshot", "dm-zero", "dm-log", "dm-region-hash",
    "dm-mirror",
)  # fmt: skip

_PROGRAMS = ("lvm", "dmsetup")

# Debian's defaults but for what a machine without udev and dmeventd cannot do.
_LVM_CONF = """\
activation {
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
    verify_udev_operations = 0
}
devices {
    use_devicesfile = 0
    obtain_device_list_from_udev = 0
    dir = "/dev"
    scan = [ "/dev" ]
}
global {
    event_activation = 0
    use_lvmpolld = 0
}
"""

_INIT = """\
#!/bin/sh
export PATH=/sbin:/bin DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /run/lvm /run/lock/lvm /etc/lvm/backup /etc/lvm/archive /out
for module in /modules/*; do
    insmod "$module" || echo "insmod $module failed"
done
cd /tmp
for command in /commands/*; do
    name=${command##*/}
    echo "judge: $name"
    sh -c "$(cat "$command")" >"/out/$name.out" 2>"/out/$name.err" </dev/null
    echo $? >"/out/$name.rc"
done
sync
tar -C /out -cf "$(cat /results)" . && sync && echo "judge: done"
poweroff -f
"""


class Outcome(NamedTuple):
    """What one command printed in the machine, and its exit code."""

    command: str
    stdout: str
    stderr: str
    rc: int


def run(
    commands: Mapping[str, str],
    drives: Sequence[Path] = (),
    *,
    timeout: float = 240,
    files: Mapping[str, bytes] | None = None,
    python: bool = False,
    cache: str = "unsafe",
) -> dict[str, Outcome]:
    """Boot, run the commands, power off; outcomes under the commands' keys.

    Drives (raw images) are /dev/vda, /dev/vdb, ...; none may be in use. `files` lie in /files;
    with `python` Debian's interpreter and its standard library are there. `cache` is QEMU's word
    for what a flush of the guest's does to the images; `unsafe`: nothing.
    All commands run, also after one that failed. RuntimeError, with the end of the console, when
    the machine does not come to its end in `timeout` seconds.
    """
    kernel, base = _boot_files()
    with tempfile.TemporaryDirectory(prefix="ulvm-judge") as name:
        work = Path(name)
        tree = work / "tree"
        (tree / "commands").mkdir(parents=True)
        for number, command in enumerate(commands.values()):
            (tree / "commands" / f"{number:04}").write_text(command)
        (tree / "results").write_text(f"/dev/vd{chr(ord('a') + len(drives))}\n")
        (tree / "files").mkdir()
        for name_of_file, content in (files or {}).items():
            (tree / "files" / name_of_file).write_bytes(content)
        initramfs = work / "initramfs"
        # The kernel unpacks archives that lie one behind the other.
        parts = [base.read_bytes(), _python() if python else b"", _cpio(tree)]
        initramfs.write_bytes(b"".join(parts))
        results = work / "results.tar"
        with results.open("wb") as file:
            file.truncate(128 << 20)
        _boot(kernel, initramfs, [*drives, results], work / "console", timeout, cache=cache)
        return dict(zip(commands, _outcomes(commands.values(), results), strict=True))


def kernel_release() -> str:
    """What judges, such as 6.1.0-56-cloud-amd64."""
    return _boot_files()[0].parent.name


def _boot(
    kernel: Path,
    initramfs: Path,
    drives: Sequence[Path],
    console: Path,
    timeout: float,
    *,
    cache: str,
) -> None:
    words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512"]
    words += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    words += ["-kernel", str(kernel), "-initrd", str(initramfs)]
    # A busy host is too slow for the kernel's check of the timer, which would panic.
    words += ["-append", "console=ttyS0 loglevel=4 panic=-1 no_timer_check"]
    for drive in drives:
        words += ["-drive", f"file={drive},format=raw,if=virtio,cache={cache},discard=unmap"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end after {timeout} s:\n{_tail(console)}") from error
    if done.returncode or "judge: done" not in _tail(console):
        raise RuntimeError(f"qemu ended with {done.returncode}: {done.stderr}\n{_tail(console)}")


def _tail(console: Path) -> str:
    return console.read_text(errors="replace")[-4000:] if console.exists() else "(no console)"


def _outcomes(commands: Iterable[str], results: Path) -> Iterator[Outcome]:
    with tarfile.open(results) as tar:
        files = {
            os.path.basename(member.name): tar.extractfile(member)
            for member in tar
            if member.isfile()
        }
        text = {name: file.read().decode() for name, file in files.items() if file is not None}
    for number, command in enumerate(commands):
        key = f"{number:04}"
        yield Outcome(command, text[f"{key}.out"], text[f"{key}.err"], int(text[f"{key}.rc"]))


@functools.cache
def _boot_files() -> tuple[Path, Path]:
    """(kernel, initramfs without commands), made when they are not there yet."""
    package = _kernel_package()
    folder = CACHE / package.removeprefix("linux-image-")
    stamp = folder / "modules.list"
    if not stamp.exists() or stamp.read_text() != " ".join(_MODULES):
        _fetch_kernel(package, folder)
    base = folder / "initramfs"
    # Made anew in every run: lvm2 on this machine may have been updated.
    with tempfile.TemporaryDirectory(prefix="ulvm-judge") as name:
        tree = Path(name)
        _fill_tree(tree, folder / "modules")
        fresh = folder / f"initramfs.{os.getpid()}"
        fresh.write_bytes(_cpio(tree))
        fresh.rename(base)
    return folder / "vmlinuz", base


def _kernel_package() -> str:
    """The package of Debian's present cloud kernel; without lists, one that was fetched before."""
    listed = subprocess.run(
        ["apt-cache", "depends", _META_PACKAGE], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", listed, re.MULTILINE)
    if found:
        return found[1]
    fetched = sorted(path.parent.name for path in CACHE.glob("*/vmlinuz"))
    if fetched:
        return f"linux-image-{fetched[-1]}"
    raise RuntimeError(f"apt-cache knows no {_META_PACKAGE}: run apt-get update")


def _fetch_kernel(package: str, folder: Path) -> None:
    """Kernel and modules out of the package into `folder`, all or nothing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch", dir=CACHE) as name:
        work = Path(name)
        subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package],
            cwd=work,
            check=True,
        )
        (deb,) = work.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, work / "unpacked"], check=True)
        fresh = work / "fresh"
        (fresh / "modules").mkdir(parents=True)
        (kernel,) = (work / "unpacked" / "boot").glob("vmlinuz-*")
        shutil.copy(kernel, fresh / "vmlinuz")
        (tree,) = (work / "unpacked").glob("**/lib/modules/*")
        for number, module in enumerate(_MODULES):
            code = _module(tree, module)
            if code is not None:
                (fresh / "modules" / f"{number:02}-{module}.ko").write_bytes(code)
        (fresh / "modules.list").write_text(" ".join(_MODULES))
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _module(tree: Path, name: str) -> bytes | None:
    """The module's code; None when it is built in."""
    for path in (tree / "kernel").rglob(f"{name}.ko*"):
        code = path.read_bytes()
        return lzma.decompress(code) if path.suffix == ".xz" else code
    if f"/{name}.ko" in (tree / "modules.builtin").read_text():
        return None
    raise RuntimeError(f"the kernel's package holds no module {name}")


def _fill_tree(tree: Path, modules: Path) -> None:
    for directory in ("bin", "sbin", "proc", "sys", "dev", "tmp", "run", "etc/lvm"):
        (tree / directory).mkdir(parents=True)
    shutil.copytree(modules, tree / "modules")
    busybox = _which("busybox")
    shutil.copy(busybox, tree / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    for program in _PROGRAMS:
        path = _which(program)
        shutil.copy(path, tree / "sbin" / program)
        _copy_libraries(tree, path)
    (tree / "etc/lvm/lvm.conf").write_text(_LVM_CONF)
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)


def _copy_libraries(tree: Path, path: str) -> None:
    """What the program or module at `path` is linked with."""
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout):
        target = tree / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


@functools.cache
def _python() -> bytes:
    """An archive with Debian's Python: the interpreter as /bin/python3, and the modules that are
    files of the library's own folder or one of a few packages."""
    interpreter = os.path.realpath("/usr/bin/python3")
    library = Path("/usr/lib") / Path(interpreter).name
    with tempfile.TemporaryDirectory(prefix="ulvm-judge") as name:
        tree = Path(name)
        (tree / "bin").mkdir()
        shutil.copy(interpreter, tree / "bin" / "python3")
        _copy_libraries(tree, interpreter)
        target = tree / str(library).lstrip("/")
        target.mkdir(parents=True)
        for module in library.glob("*.py"):
            shutil.copy(module, target)
        for package in ("collections", "encodings", "importlib", "json", "re", "lib-dynload"):
            shutil.copytree(
                library / package, target / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        for module in (target / "lib-dynload").glob("*.so"):
            if module.name.startswith(("mmap", "_json", "_hashlib", "_sha", "fcntl")):
                _copy_libraries(tree, str(module))
        return _cpio(tree)


def _which(program: str) -> str:
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise RuntimeError(f"{program} is not installed")
    return path


def _cpio(tree: Path) -> bytes:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    return subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        cwd=tree,
        input=names.encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
