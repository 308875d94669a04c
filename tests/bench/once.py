"""The child process of a measurement: ``python -m tests.bench.once MEASUREMENT CONTENDER FOLDER`` prints JSON."""

import json
import sys
from pathlib import Path

from tests.bench import measurements

if __name__ == "__main__":
    name, contender, folder = sys.argv[1:]
    print(json.dumps(measurements.by_name(name).contenders[contender](Path(folder))))
