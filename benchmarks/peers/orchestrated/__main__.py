"""Build the flow in the current folder on one system and print what was built as JSON."""

import json
import sys
from dataclasses import asdict
from importlib import import_module

from orchestrated.settings import Settings

built = import_module(f"orchestrated.on_{sys.argv[1]}").build(Settings.read())
print(json.dumps(asdict(built), default=str))
