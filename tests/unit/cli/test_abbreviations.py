"""Long options cut short, as getopt_long(3)."""

from __future__ import annotations

import click
import pytest

from ulvm.cli.abbreviations import AmbiguousOption, expanded


@click.command()
@click.option("--noheadings", is_flag=True)
@click.option("--nosuffix", is_flag=True)
@click.option("-o", "--options")
@click.option("--name")
@click.option("--names", is_flag=True)
@click.option("-v", "--verbose", count=True)
def command() -> None:
    """Something with options."""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--noh", "--noheadings"),
        ("--opt x", "--options x"),
        ("--opt=--noh", "--options=--noh"),
        ("--opt --noh", "--options --noh"),  # A value, whatever it looks like.
        ("-o --noh", "-o --noh"),
        ("-vo --noh --noh", "-vo --noh --noheadings"),
        ("-ov --noh", "-ov --noheadings"),
        ("--name --noh", "--name --noh"),  # Whole, though another begins with it.
        ("--names --noh", "--names --noheadings"),
        ("-- --noh", "-- --noh"),
        ("--nothing", "--nothing"),
        ("--he", "--help"),
        ("--opt", "--options"),
        ("--no-headings --no-s", "--noheadings --nosuffix"),
        ("--o-ptions=a-b", "--options=a-b"),
        ("--no-thing", "--nothing"),  # As LVM names it in its refusal.
    ],
)
def test_expansion(typed: str, meant: str) -> None:
    assert expanded(typed.split(), command) == meant.split()


def test_ambiguity_names_the_options() -> None:
    with pytest.raises(AmbiguousOption) as caught:
        expanded(["--no"], command)
    wanted = "option '--no' is ambiguous; possibilities: '--noheadings' '--nosuffix'"
    assert caught.value.message == wanted
