"""Print the JSON schema of a curriculum, as `curricula/curriculum.schema.json` holds it."""

import sys

from curricula.schema import json_schema

sys.stdout.write(json_schema())
