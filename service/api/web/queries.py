"""The query of a request: what FastAPI reads of it is the last value of a name, whatever stands before it."""

from starlette.requests import Request

from service.domain.errors import InvalidRequest


def check_query(request: Request) -> None:
    """Raises InvalidRequest for a name that the query has twice. Those of lists, which end in `[]`, may be."""
    if not request.scope["query_string"]:
        return
    known: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in known and not name.endswith("[]"):
            raise InvalidRequest(f"'{name}' is in the query of your request twice. Send it once.", param=name)
        known.add(name)
