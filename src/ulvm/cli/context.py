"""What a command is given: the host and a session, by its options (`cli.common_options`) and by a
mapping of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ulvm.cli.console import Console
from ulvm.errors import RefusedError, SettingsError, UsageError

if TYPE_CHECKING:
    from ulvm.cli.report_options import Output
    from ulvm.lvm.session import Session
    from ulvm.report.log import LogEntry
    from ulvm.vgstore.host import Host

__all__ = ["Context", "Settings"]

_TEST_MODE = "TEST MODE: Metadata will NOT be updated and volumes will not be (de)activated."
_NO_ACTIVATION = "WARNING: Activation disabled. No device-mapper interaction will be attempted."
_DISPLAYS = frozenset({"lvdisplay", "pvdisplay", "vgdisplay"})
"""Take --reportformat, and do nothing with it."""
_ONE_GROUP = frozenset(
    ("lvcreate", "lvextend", "lvreduce", "lvrename", "lvresize", "vgextend", "vgrename")
)
"""Commands whose log is about one group as a whole."""


class Settings:
    """What the options say that all commands of LVM have."""

    config: str = ""
    verbose: int = 0
    calm: bool = False
    """-q: nothing of what -v tells."""
    debug: int = 0
    test: bool = False
    autobackup: bool = True
    driver_loaded: bool = True
    read_only: bool = False
    foreign: bool = False
    locking: bool = True
    profile: str = ""
    metadata_profile: str | None = None
    """A profile that a new volume or group is to have, or that one is to change to."""
    report_format: str | None = None
    is_report: bool = True
    devices: tuple[str, ...] = ()
    devices_file: str | None = None


def _devices_file_setting(name: str, devices_named: bool) -> str:
    """What --devicesfile sets: another file, or with an empty name none."""
    # Of commands with that option alone.
    from ulvm.metadata.names import name_problem

    if devices_named:
        raise UsageError("A --devices list cannot be used with --devicesfile.")
    if not name:
        return "\ndevices { use_devicesfile = 0 }"
    if name_problem(name) is not None:
        raise UsageError("Invalid devices file name.")
    return f'\ndevices {{ use_devicesfile = 1 devicesfile = "{name}" }}'


class Context:
    """Of one command. `command_line` is what metadata and archive will say made a change."""

    def __init__(self, environ: Mapping[str, str], argv: Sequence[str]) -> None:
        self.environ = environ
        self.words = tuple(argv)
        self.command_line = " ".join(f"'{word}'" if " " in word else word for word in argv)
        self.settings = Settings()
        self.command = argv[0] if argv else ""
        self.console = Console()
        self.output: Output | None = None
        """What a report shows, or the log that another command ends with."""
        self.last_log: Sequence[LogEntry] | None = None
        """In the shell: of the command before."""
        self._host: Host | None = None
        self._session: Session | None = None

    @property
    def verbose(self) -> int:
        return self.settings.verbose

    @property
    def host(self) -> Host:
        if self._host is None:
            self._host = self._made_host()
        return self._host

    def _made_host(self) -> Host:
        from ulvm.vgstore.host import Host

        asked = self.settings
        overrides = asked.config  # which may end with a comment
        if not asked.autobackup:
            overrides += "\nbackup { backup = 0 archive = 0 }"
        if asked.devices_file is not None:
            overrides += _devices_file_setting(asked.devices_file, bool(asked.devices))
        host = Host.from_environment(self.environ, overrides=overrides, profile=asked.profile)
        if asked.metadata_profile is not None:
            host = host.with_profile(asked.metadata_profile, "metadata")
        self._check(host)
        self._apply(host)
        locking, read_only = self._locking(host)
        host = host._replace(
            activation=asked.driver_loaded and not asked.read_only,
            locking=locking and not asked.read_only,
            read_only=read_only or asked.read_only,
            activates=not asked.read_only,
            foreign=asked.foreign,
            only_devices=tuple(os.path.abspath(path) for path in asked.devices),
        )
        return host.on_trial() if asked.test else host

    def _locking(self, host: Host) -> tuple[bool, bool]:
        """Whether there are locks, and whether metadata are not to be changed, by
        global/locking_type."""
        kind = host.config.get_int("global/locking_type", 1)
        if kind == 1:
            return self.settings.locking, False
        if self.command != "dmsetup":  # which knows no groups, and so no locks
            how = {0: "--nolocking", 5: "--nolocking", 4: "--sysinit --readonly"}
            word = how.get(kind, "file locking")
            self.console.warn(f"WARNING: locking_type ({kind}) is deprecated, using {word}.")
        if not self.settings.locking:
            return False, False
        return kind not in (0, 5), kind == 4

    def _apply(self, host: Host) -> None:
        """Settings that say the same as options, or how this process is to behave."""
        config, asked, console = host.config, self.settings, self.console
        console.prefix = config.get_str("log/prefix", "  ")
        if config.get_bool("log/command_names", False):
            console.prefix = self.command + console.prefix
        if config.get_bool("log/indent", False):
            console.indent = "  "
        self._apply_verbosity(config.get_int("log/verbose", 0))
        if config.get("log/file") is not None or config.get("log/syslog") is not None:
            from ulvm.cli.logfile import open_log

            console.file = open_log(config, self.command, console.tell)
        asked.test = asked.test or config.get_bool("global/test", False)
        asked.driver_loaded = asked.driver_loaded and config.get_bool("global/activation", True)
        if config.get_bool("log/silent", False):
            console.quiet = console.denies = True
        if config.get("global/umask") is not None:
            os.umask(config.get_int("global/umask", 0o77))

    def _apply_verbosity(self, least: int) -> None:
        """log/verbose: as so many -v; below 0, nothing but errors is shown."""
        asked, console = self.settings, self.console
        if least < 0:
            console.mute = console.quiet = True
        asked.verbose = max(asked.verbose, least)
        console.verbosity = 0 if asked.calm else asked.verbose

    def _check(self, host: Host) -> None:
        """Tell of settings that are unknown or wrong (config/checks)."""
        config = host.config
        if not config.tree or not config.get_bool("config/checks", True):
            return
        from ulvm.vgstore.settings import check_settings

        said = [
            text
            for layer in config.layers
            if layer.source in ("file", "string")
            for text in check_settings(layer.tree)
        ]
        for text in dict.fromkeys(said):
            self.console.warn(text)
        if said and config.get_bool("config/abort_on_errors", False):
            front = config.layers[-1]
            if front.source == "string" and check_settings(front.tree):
                raise RefusedError("LVM configuration invalid.")
            raise SettingsError("LVM configuration invalid.")

    def session(self, command_line: str = "") -> Session:
        """The command's session; the same one each time."""
        if self._session is None:
            from ulvm.lvm.session import Session
            from ulvm.vgstore.system_id import host_system_id

            for text in host_system_id(self.host.config)[1]:
                self.console.warn(text)
            line = command_line or self.command_line
            self._session = Session(self.host, self.console, command_line=line)
            if self.settings.test:
                self.console.warn(_TEST_MODE)
            if not self.settings.driver_loaded:
                self.console.warn(_NO_ACTIVATION)
            self._begin_log()
        return self._session

    def _begin_log(self) -> None:
        """Of a command that is no report: what it ends with, if something is wanted."""
        config, asked = self.host.config, self.settings
        form = asked.report_format or config.get_str("report/output_format", "basic")
        if self.command in _DISPLAYS:
            form = "basic"
        if not asked.is_report and (
            form != "basic" or config.get_bool("log/report_command_log", False)
        ):
            from ulvm.cli.report_options import Output

            try:
                self.output = Output.of_log(self)
            except RefusedError as error:
                raise RefusedError(
                    f"{error.message}\nFailed to initialize processing handle."
                ) from None

    def finish(self, status: int) -> None:
        """After the command: its log, if it is to be shown. RefusedError."""
        output, session = self.output, self._session
        if output is None:
            return
        if self.command in _ONE_GROUP and session is not None and session.group is not None:
            from ulvm.report.log import LogObject

            group = LogObject("vg", session.group.name, session.group.uuid)
            output.log.of_group(group, failed=status != 0)
        self.console.log = None
        output.finish()

    def show(self, text: str) -> None:
        """What was asked for, by a command that needs no session."""
        self._host = self.host
        self.console.show(text)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        log, self.console.file = self.console.file, None
        if log is not None:
            log.close()
            if log.problem:
                self.console.tell(f"WARNING: Not all is in log/file: {log.problem}")
