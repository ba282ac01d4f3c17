"""What `dmsetup help` prints."""

from __future__ import annotations

__all__ = ["USAGE"]

USAGE = """\
Usage:

dmsetup
        [--version] [-h|--help [-c|-C|--columns]]
        [-v|--verbose [-v|--verbose ...]] [-f|--force]
        [--checks] [--manglename {none|hex|auto}]
        [-r|--readonly] [--noopencount] [--noflush] [--nolockfs] [--inactive]
        [--udevcookie <cookie>] [--noudevrules] [--noudevsync] [--verifyudev]
        [-y|--yes] [--readahead {[+]<sectors>|auto|none}] [--retry]
        [-c|-C|--columns] [-o <fields>] [-O|--sort <sort_fields>]
        [-S|--select <selection>] [--nameprefixes] [--noheadings]
        [--separator <separator>]

\thelp [-c|-C|--columns]
\tcreate <dev_name>
\t    [-j|--major <major> -m|--minor <minor>]
\t    [-U|--uid <uid>] [-G|--gid <gid>] [-M|--mode <octal_mode>]
\t    [-u|--uuid <uuid>] [--addnodeonresume|--addnodeoncreate]
\t    [--readahead {[+]<sectors>|auto|none}]
\t    [-n|--notable|--table {<table>|<table_file>}]
\tcreate --concise [<concise_device_spec_list>]
\tremove [--deferred] [-f|--force] [--retry] <device>...
\tremove_all [-f|--force]
\tsuspend [--noflush] [--nolockfs] <device>...
\tresume [--noflush] [--nolockfs] <device>...
\t       [--addnodeonresume|--addnodeoncreate]
\t       [--readahead {[+]<sectors>|auto|none}]
\tload <device> [<table>|<table_file>]
\tclear <device>
\treload <device> [<table>|<table_file>]
\twipe_table [-f|--force] [--noflush] [--nolockfs] <device>...
\trename <device> [--setuuid] <new_name_or_uuid>
\tmessage <device> <sector> <message>
\tls [--target <target_type>] [--exec <command>] [-o <options>] [--tree]
\tinfo [<device>...]
\tdeps [-o <options>] [<device>...]
\tstatus [<device>...] [--noflush] [--target <target_type>]
\ttable [<device>...] [--concise] [--target <target_type>] [--showkeys]
\twait <device> [<event_nr>] [--noflush]
\tmknodes [<device>...]
\tmangle [<device>...]
\tudevcreatecookie\x20
\tudevreleasecookie [<cookie>]
\tudevflags <cookie>
\tudevcomplete <cookie>
\tudevcomplete_all [<age_in_minutes>]
\tudevcookies\x20
\ttarget-version [<target>...]
\ttargets\x20
\tversion\x20
\tsetgeometry <device> <cyl> <head> <sect> <start>
\tsplitname <device> [<subsystem>]

<device> may be device name or (if only one) -u <uuid> or -j <major> -m <minor>
<mangling_mode> is one of 'none', 'auto' and 'hex'.
<fields> are comma-separated.  Use 'help -c' for list.
<concise_device_specification> has single-device entries separated by semi-colons:
    <name>,<uuid>,<minor>,<flags>,<table>
        where <flags> is 'ro' or 'rw' (the default) and any of <uuid>, <minor>
        and <flags> may be empty. Separate extra table lines with commas.
    E.g.: dev1,,,,0 100 linear 253:1 0,100 100 error;dev2,,,ro,0 1 error
Table_file contents may be supplied on stdin.
Options are: devno, devname, blkdevname.
Tree specific options are: ascii, utf, vt100; compact, inverted, notrunc;
                           blkdevname, [no]device, active, open, rw and uuid.
"""
