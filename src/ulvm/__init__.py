"""LVM2 with copy-on-write snapshots in user space."""

__all__ = ["__version__"]

__version__ = "0.1.0"
