"""A client that reads one stream while something is broken, and says how it ended."""

from typing import Any

import openai

from tests.production import Production


def read_stream(production: Production, model: str, ends: list[str], **more: Any) -> None:
    """One stream to its end; notes how it ended. Anything but an end or a clean error is noted as `broken`."""
    try:
        with production.client(retries=0) as client:
            stream = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "0 red?"}],
                max_tokens=200,
                temperature=1,
                stream=True,
                **more,
            )
            finished = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]
            ends.append("ended" if finished and finished[-1] in ("stop", "length") else "broken: no finish_reason")
    except openai.APIStatusError as error:
        ends.append("clean error" if error.status_code == 503 else f"broken: {error.status_code}")
    except openai.APIError as error:  # an error event in the stream
        ends.append("clean error" if error.body else f"broken: {error}")
