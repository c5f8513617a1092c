"""JSON whose shape is somebody else's: a client's free fields, an engine's answer, a chat template's message.

What has a shape of ours has a type of ours.
"""

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
