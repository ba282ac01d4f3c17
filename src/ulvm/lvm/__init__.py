"""LVM's operations as library calls. A command parses, calls one of these, and prints.

Every change takes the volume group's lock, scans afresh, makes the next VG by a pure function and
commits it around one swap of tables (`session.Session.change_vg`).
"""
