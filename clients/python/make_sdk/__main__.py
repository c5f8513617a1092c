"""`python -m clients.python.make_sdk`, which is `make sdk`."""

import json
import sys

from clients.python.make_sdk.document import DocumentError
from clients.python.make_sdk.write import DOCUMENT, FOLDER, generated

try:
    texts = generated(json.loads(DOCUMENT.read_text(encoding="utf-8")))
except DocumentError as error:
    sys.exit(f"make sdk: {error}")
FOLDER.mkdir(exist_ok=True)
for name, text in texts.items():
    (FOLDER / name).write_text(text, encoding="utf-8")
