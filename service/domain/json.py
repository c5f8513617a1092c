"""JSON whose shape others define: a client's free fields, an engine's response, a chat template's message.

Data whose shape we define has a type of its own.
"""

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
