"""The command line, `popcloud`: one file per group of commands, `entry` joins them."""

from popcloud.cli.entry import main

__all__ = ["main"]
