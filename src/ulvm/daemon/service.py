"""ulvmd: the composition root. It holds the mapped devices and opens the doors to them.

    ulvmd.lock    one daemon for a run directory (flock)
    control.sock  the device-mapper calls, for commands
    nbd.sock      NBD
    dev/          the FUSE tree
    state.json    what to bring back after kill -9
    stage/        what was written to origins and snapshots and is not there yet (dm.stage)
    ulvmd.log     what happened

Order of a start: lock, devices from the state file, NBD, FUSE, control socket, ready. Who can
connect finds everything there. Order of a stop: control socket (requests under way are waited for,
so that nothing is loaded or resumed later), commands started by ourselves, doors, devices
(flushed), state. A daemon killed in the midst of it is followed by one that brings back what there
was; likewise if taking the devices down fails.

SIGTERM, SIGINT and SIGHUP mean a stop, even with volumes in use. SIGHUP as for dmeventd: there are
no settings to read anew, and who runs it in a terminal and closes that means its end, unless it was
started by nohup. One that a command has started has no terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ulvm import faultpoints
from ulvm.activation.names import LVM_UUID_PREFIX
from ulvm.activation.status import parse_snapshot_status
from ulvm.daemon.client import CONTROL_SOCKET, NBD_SOCKET
from ulvm.daemon.control import Connection, ControlServer
from ulvm.daemon.links import DeviceLinks
from ulvm.daemon.measure import Measurement
from ulvm.daemon.messages import info_to_json, lines_of, lines_to_json
from ulvm.daemon.monitor import Monitor
from ulvm.daemon.process import hold_run_dir, lift_limits, prepare
from ulvm.daemon.repairs import Repairs
from ulvm.daemon.state import StateKeeper, read_state
from ulvm.daemon.syslog import log_to_syslog
from ulvm.daemon.volumes import DEV_DIR, MapperExports, MountFreezer, export_names, name_of_path
from ulvm.dm.device import MappedDevice
from ulvm.dm.mapper import LocalMapper
from ulvm.dm.stage_file import StageSettings
from ulvm.dm.state import note_losses
from ulvm.errors import BusyError, NotFoundError, ProtocolError, UlvmError
from ulvm.exports.fuse import FuseServer
from ulvm.exports.nbd_server import NbdServer
from ulvm.exports.nbd_tls import Certificates
from ulvm.vgstore.host import ROOT_RUN_DIR, Host
from ulvm.vgstore.policy import PolicyFile

__all__ = ["Service", "main"]

log = logging.getLogger("ulvmd")

LOG_FILE = "ulvmd.log"
STAGE_DIR = "stage"
_WAIT_SLICE = 0.5
_OF_ONE_COMMAND = ("ULVM_COMMAND_PROFILE", "LVM_COMMAND_PROFILE", "LVM_VG_NAME")
"""Variables that the command which starts us was given, and those that we start are not to have."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Service:
    """One daemon. `start` and `stop` are called once each, by the main thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._run_dir = host.run_dir
        freezer = MountFreezer(self._run_dir, host.dev_dir)
        self.mapper = LocalMapper(
            name_of_path=lambda path: name_of_path(path, self._run_dir),
            durability=host.config.get_str("ulvm/durability", "host"),
            log=log.warning,
            freezer=freezer,
            stage=StageSettings(
                host.config.get_int("ulvm/stage_size", 65536) << 10, self._run_dir / STAGE_DIR
            ),
        )
        freezer.attach(self.mapper)
        self._exports = MapperExports(self.mapper)
        self._nbd = NbdServer(self._exports)
        self._fuse: FuseServer | None = None
        self._fuse_problem: str | None = None
        self._tcp: list[str] = []
        self._repairs = Repairs(self.mapper, host.background_command)
        self._control = ControlServer(
            self._run_dir / CONTROL_SOCKET, self._handlers(), abandoned=self._repairs.abandoned
        )
        self._monitor = Monitor(
            self.mapper,
            policy=PolicyFile(host).policy,
            command=host.background_command,
            mount_points=freezer.mount_points,
            monitoring=host.config.get_bool("activation/monitoring", True),
        )
        self._links = _links_of(host)
        self._linked: set[tuple[str, str]] | None = None
        self._linking = threading.Lock()
        """Over the look at the devices as well: who looked first links first."""
        self._state = StateKeeper(self._run_dir, lambda: self.mapper.snapshot_state()["devices"])
        self._started = _now()
        self._end, self._end_writer = os.pipe()

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        state = read_state(self._run_dir, log.warning, starting=True)
        suspended: list[MappedDevice] = []
        self._state.start()
        if state is not None:
            self.mapper.on_change.append(self._keep_losses)
            self._state.coming_back = state["devices"]
            log.warning("the last daemon was killed: bringing its devices back")
            for problem in self.mapper.restore_state(state):
                log.error("not brought back: %s", problem)
            suspended = [
                d
                for d in self.mapper.all_mapped()
                if d.suspended and d.uuid.startswith(LVM_UUID_PREFIX)
            ]
        self._state.coming_back = None  # What is lost from now on is in what all devices are.
        self.mapper.on_change[:] = [self._state.save]
        for loss in self.mapper.forget_stages():
            log.error("%s", loss)
        self._nbd.listen_unix(str(self._run_dir / NBD_SOCKET))
        try:
            # Not `exist_ok`: that looks at what is there, and a killed daemon's mount answers
            # ENOTCONN.
            with contextlib.suppress(FileExistsError):
                (self._run_dir / DEV_DIR).mkdir(mode=0o700)
            self._fuse = FuseServer(self._exports, self._run_dir / DEV_DIR)
            self._fuse.start()
        except (UlvmError, OSError, RuntimeError, MemoryError) as error:  # no more threads, too
            # NBD serves all the same: a machine without FUSE is one of those we are for.
            self._fuse_problem = str(error) or repr(error)
            log.error("no FUSE tree: %s", self._fuse_problem)
        self.mapper.on_change.append(self._link)
        self._link()
        self._control.start()
        self._monitor.start()
        if state is not None:
            self._repairs.abandoned(suspended)
            self._repairs.see_merges_through()

    def _keep_losses(self) -> None:
        left = self._state.coming_back
        if left is None or note_losses(self.mapper, left):
            self._state.save()

    def stop(self) -> None:
        """Take everything down; what was not flushed is, and the state is dropped. A step that
        fails is logged and hinders none of the others."""
        for step in (
            self._control.stop,
            self._monitor.stop,
            self._repairs.stop,
            self._nbd.stop,
            self._unlink,
            self._stop_fuse,
            self._take_down,
        ):
            try:
                step()
            except Exception:
                log.exception("while stopping")
        log.info("stopped")

    def _unlink(self) -> None:
        self.mapper.on_change[:] = [hook for hook in self.mapper.on_change if hook != self._link]
        with self._linking:  # whoever was told before that is through, or finds none to make
            links, self._links = self._links, None
            if links is not None:
                links.clear()

    def _take_down(self) -> None:
        self.mapper.shutdown()  # A snapshot that turns invalid by it is invalid if all stays.
        self._state.stop()
        if not self.mapper.all_mapped(leaving=True):  # else the next daemon brings back what stayed
            self._state.drop()

    def request_stop(self) -> None:
        """End `wait_for_stop`. A write to a pipe, so that a signal handler may call it."""
        os.write(self._end_writer, b".")

    def wait_for_stop(self) -> None:
        os.read(self._end, 1)

    def _link(self) -> None:
        """The links in /dev follow the devices."""
        if self._links is None or self._fuse_problem is not None:
            return
        with self._linking:
            if self._links is None:
                return
            devices = [d for d in self.mapper.all_mapped() if d.live is not None and not d.removed]
            known = {(device.name, device.uuid) for device in devices}
            if known != self._linked:
                self._linked = known
                self._links.update(name for device in devices for name in export_names(device))

    # -- requests ---------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Any]:
        mapper = self.mapper

        def flag(args: Mapping[str, Any], name: str, default: bool = False) -> bool:
            return bool(args.get(name, default))

        def create(_: Connection, args: Mapping[str, Any]) -> Any:
            minor = args.get("minor")
            return info_to_json(
                mapper.create(
                    str(args["name"]),
                    str(args.get("uuid", "")),
                    minor=None if minor is None else int(minor),
                    read_only=flag(args, "read_only"),
                )
            )

        def load(_: Connection, args: Mapping[str, Any]) -> Any:
            table = lines_of(args["table"])
            return info_to_json(
                mapper.load(str(args["device"]), table, read_only=flag(args, "read_only"))
            )

        def suspend(connection: Connection, args: Mapping[str, Any]) -> Any:
            device = mapper.mapped(str(args["device"]))
            if flag(args, "lease"):
                connection.leased.add(device)
            return info_to_json(
                mapper.suspend(
                    device.name, lockfs=flag(args, "lockfs", True), flush=flag(args, "flush", True)
                )
            )

        def resume(connection: Connection, args: Mapping[str, Any]) -> Any:
            device = mapper.mapped(str(args["device"]))
            info = mapper.resume(device.name)
            connection.leased.discard(device)
            return info_to_json(info)

        def wait(connection: Connection, args: Mapping[str, Any]) -> Any:
            return self._wait(connection, args)

        def measure(connection: Connection, args: Mapping[str, Any]) -> Any:
            device = mapper.mapped(str(args["device"]))
            measured = Measurement(device)
            connection.at_end.append(measured.close)
            connection.measured = measured
            return measured.chunk_sizes

        def measure_slot(connection: Connection, args: Mapping[str, Any]) -> Any:
            measured = connection.measured
            if not isinstance(measured, Measurement):
                raise ProtocolError("this connection measures nothing")
            return measured.slot()

        return {
            "measure": measure,
            "measure_slot": measure_slot,
            "create": create,
            "load": load,
            "suspend": suspend,
            "resume": resume,
            "wait": wait,
            "clear": lambda _, a: info_to_json(mapper.clear(str(a["device"]))),
            "remove": lambda _, a: mapper.remove(str(a["device"]), force=flag(a, "force")),
            "rename": lambda _, a: info_to_json(
                mapper.rename(str(a["device"]), str(a["new_name"]))
            ),
            "set_uuid": lambda _, a: info_to_json(
                mapper.set_uuid(str(a["device"]), str(a["uuid"]))
            ),
            "table": lambda _, a: lines_to_json(
                mapper.table(str(a["device"]), inactive=flag(a, "inactive"))
            ),
            "status": lambda _, a: lines_to_json(
                mapper.status(
                    str(a["device"]),
                    flush=flag(a, "flush", True),
                    inactive=flag(a, "inactive"),
                )
            ),
            "info": lambda _, a: info_to_json(mapper.info(str(a["device"]))),
            "deps": lambda _, a: mapper.deps(str(a["device"]), inactive=flag(a, "inactive")),
            "message": lambda _, a: mapper.message(
                str(a["device"]), int(a["sector"]), str(a["message"])
            ),
            "devices": lambda _, a: [info_to_json(info) for info in mapper.devices()],
            "targets": lambda _, a: mapper.targets(),
            "device_name": lambda _, a: mapper.device_name(int(a["major"]), int(a["minor"])),
            "monitor_report": lambda _, a: self._monitor.report(),
            "monitor": lambda _, a: self._monitor.set_monitored(
                mapper.mapped(str(a["device"])), flag(a, "on", True)
            ),
            "daemon_status": lambda _, a: self._status(),
            "listen": lambda _, a: self._listen(a),
            "stop": self._stop_request,
        }

    def _wait(self, connection: Connection, args: Mapping[str, Any]) -> int:
        """In slices, so that the thread of a client that went away ends. The device is the one
        that had the name at first."""
        device = self.mapper.mapped(str(args["device"]))
        given, timeout = args.get("event_nr"), args.get("timeout")
        event = device.event_nr if given is None else int(given)
        end = None if timeout is None else time.monotonic() + float(timeout)
        while True:
            left = _WAIT_SLICE if end is None else min(_WAIT_SLICE, end - time.monotonic())
            now = device.wait_event(event, max(left, 0.0))
            if now != event or connection.hung_up() or (end is not None and left <= 0):
                return now

    def _listen(self, args: Mapping[str, Any]) -> int:
        host, folder = str(args["host"]), args.get("tls_certificates")
        tls = None if folder is None else Certificates(Path(str(folder)))
        force = bool(args.get("force", False))
        chosen = self._nbd.listen_tcp(host, int(args["port"]), tls=tls, force=force)
        self._tcp.append(f"{host}:{chosen}{' with TLS' if tls else ''}")
        return chosen

    def _stop_request(self, connection: Connection, args: Mapping[str, Any]) -> None:
        used = self._in_use()
        if used and not args.get("force", False):
            what = ", ".join(used)
            raise BusyError(
                f"Volumes are in use: {what}. Unmount or close them first, or use --force."
            )
        connection.after_reply = self.request_stop

    def _in_use(self) -> list[str]:
        """Names of volumes that are open from outside, not by another device's table."""
        devices = self.mapper.all_mapped()
        holds = Counter(
            lower for d in devices for (lower, _), tables in list(d.uses.items()) if tables
        )
        return [export_names(d)[0] for d in devices if d.open_count > holds[d]]

    def _stop_fuse(self) -> None:
        if self._fuse is not None:
            self._fuse.stop()

    def _without_fuse(self) -> str | None:
        """Why there is no FUSE tree; None if there is one."""
        if self._fuse_problem is not None or (self._fuse is not None and self._fuse.mounted):
            return self._fuse_problem
        return "it was unmounted; a daemon that is started anew has it again"

    def _status(self) -> dict[str, Any]:
        problem = self._without_fuse()
        return {
            "pid": os.getpid(),
            "uptime": _now() - self._started,
            "run_dir": str(self._run_dir),
            "system_dir": str(self._host.system_dir),
            "nbd": str(self._run_dir / NBD_SOCKET),
            "tcp": list(self._tcp),
            "dev": str(self._run_dir / DEV_DIR) if problem is None else None,
            "fuse_problem": problem,
            "log": str(self._run_dir / LOG_FILE),
            "in_use": self._in_use(),
            "volumes": [v for d in self.mapper.all_mapped() if (v := self._volume(d))],
        }

    def _volume(self, device: MappedDevice) -> dict[str, Any] | None:
        try:
            lines = self.mapper.status(device.name)
        except NotFoundError:
            return None  # removed a moment ago
        status = parse_snapshot_status(lines[0]) if lines else None
        return {
            "name": export_names(device)[0],
            "dm_name": device.name,
            "size": device.size,
            "open_count": device.open_count,
            "suspended": device.suspended,
            "target": lines[0].target_type if lines else None,
            "full": None if status is None else status.fraction,
        }


def _now() -> float:
    """Of a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _links_of(host: Host) -> DeviceLinks | None:
    """ulvm/device_links: in devices/dir; by default on root's own host, whose paths people type."""
    own = os.geteuid() == 0 and host.run_dir == ROOT_RUN_DIR
    if not host.config.get_bool("ulvm/device_links", own):
        return None
    return DeviceLinks(host.dev_dir, host.run_dir / DEV_DIR)


# -- the process ----------------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ulvmd",
        description="Serve the active volumes of a host. Commands start it.",
        epilog="SIGTERM, SIGINT and SIGHUP (unless under nohup) stop it in order, as `ulvm daemon "
        "stop --force` does.",
    )
    parser.add_argument("--run-dir", type=Path, help="default: as for ulvm")
    parser.add_argument("--system-dir", type=Path, help="default: as for ulvm")
    parser.add_argument("--config", default="", help="settings on top of ulvm.conf")
    parser.add_argument("--detached", action="store_true", help="go to the background")
    parser.add_argument("--ready-fd", type=int, help="where to say that it serves, or why not")
    return parser.parse_args(argv)


def _host(arguments: argparse.Namespace) -> Host:
    host = Host.from_environment(os.environ, overrides=arguments.config)
    if arguments.run_dir is None and arguments.system_dir is None:
        return host
    system_dir = (arguments.system_dir or host.system_dir).absolute()
    run_dir = (arguments.run_dir or host.run_dir).absolute()
    return Host(system_dir, run_dir).with_settings(arguments.config)


def _tell(arguments: argparse.Namespace, text: str) -> None:
    """Answer on the ready pipe: nothing and its end mean that all is well."""
    if arguments.ready_fd is None:
        if text:
            print(text, file=sys.stderr)
        return
    os.write(arguments.ready_fd, text.encode(errors="replace"))
    os.close(arguments.ready_fd)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    faultpoints.arm(os.environ.get("ULVM_DAEMON_FAULT_POINT", ""))
    if arguments.detached:
        if os.fork():
            os._exit(0)
        for name in _OF_ONE_COMMAND:
            os.environ.pop(name, None)
    os.umask(0o077)  # what the run directory holds is nobody else's, were that open to others
    try:
        host = _host(arguments)
        host.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = hold_run_dir(host.run_dir)
    except (UlvmError, OSError) as error:
        _tell(arguments, str(error))
        return 5
    if held is None:
        _tell(arguments, f"A daemon already runs for {host.run_dir}.")
        return 5
    logging.basicConfig(
        filename=host.run_dir / LOG_FILE,
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.INFO,
    )
    log_to_syslog()
    prepare()
    if arguments.detached:  # else who started us may have limited us
        lift_limits()
    # For a bug report: SIGUSR1 writes what each thread is doing to the log, a crash does as well.
    stacks = (host.run_dir / LOG_FILE).open("ab")
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks)
    try:
        service = Service(host)
        for number in _STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: service.request_stop())
        service.start()
    except Exception as error:
        log.exception("did not start")
        _tell(arguments, f"{error}; see {host.run_dir / LOG_FILE}")
        return 5
    log.info("serving %s, process %d", host.run_dir, os.getpid())
    _tell(arguments, "")
    service.wait_for_stop()
    log.info("stopping")
    service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
