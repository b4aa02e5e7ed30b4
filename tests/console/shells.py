"""Shells into which a test pastes the commands that the console shows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SHELLS = [name for name in ("bash", "zsh") if shutil.which(name)]
ODD = (
    "\u200d\u200b\u00a0\u202e\u2066\ufeff\U0001f469\u200d\U0001f4bb\U000e0067\u0301"
    "'\"\\ $HOME `id` $(id) !! !x %s \t\r\n\x7f\x9b31m\x1b[201~; touch /tmp/x\x00 *?[a-z]{a,b} ~ # & | < >"
)
"""Text that terminals, shells and editors treat specially."""


def pasted(shell: str, text: str, folder: Path) -> str:
    """Let a shell read a command as a script; return what it says. It is given nothing but the command."""
    words = [shell, *({"bash": ["--norc"], "zsh": ["-f"]}[shell])]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
    made = subprocess.run(
        words, input=text.encode("ascii"), env=env, cwd=folder, capture_output=True, check=True, timeout=60
    )
    assert not list(folder.iterdir())
    return made.stdout.decode("latin-1")
