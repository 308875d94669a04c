"""A virtual environment for each peer, so that no peer's dependencies decide another's; made once, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

CACHE = Path.home() / ".cache" / "agentq-tests"


class VenvError(Exception):
    """pip could not install a peer; the message ends with what it said last."""


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment in which exactly these are installed.

    Raises:
        VenvError: they cannot be installed here.
    """
    pins = hashlib.blake2b("\n".join(sorted(requirements)).encode(), digest_size=4).hexdigest()
    home = CACHE / f"peers-{name}-{pins}"
    if not home.is_dir():
        _make(home, requirements)
    return home / "bin" / "python"


def _make(home: Path, requirements: Sequence[str]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{home.name}-", dir=CACHE) as temporary:
        made = Path(temporary) / "venv"
        venv.create(made, with_pip=True)
        command = [str(made / "bin" / "python"), "-m", "pip", "install", "-q", *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise VenvError((done.stderr or done.stdout).strip()[-600:])
        try:
            os.replace(made, home)  # noqa: PTH105 - whole or not at all, whoever else makes it too
        except OSError:
            if not home.is_dir():
                raise
