"""From `after` and `limit` to a list envelope. `limit=0` and an unknown `after` give an empty page, as at OpenAI.

The id of an object that was deleted is known for a while: `service.db.cursors`.
"""

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

from service.api.schemas.fields import Text
from service.operations.paging import Page

LONGEST_PAGE = 1000
LONGEST_FILES_PAGE = 10_000

After = Annotated[Text | None, Query(description="The id of the last object of the page before this one.")]
Limit = Annotated[int, Query(ge=0, le=LONGEST_PAGE, description="The most objects to return.")]
FilesLimit = Annotated[int, Query(ge=0, le=LONGEST_FILES_PAGE, description="The most files to return.")]

Row = TypeVar("Row")
Wire = TypeVar("Wire", bound=BaseModel)


class ListObject(BaseModel, Generic[Wire]):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[Wire]
    has_more: bool


class CursorList(ListObject[Wire], Generic[Wire]):
    """OpenAI's list with the ids of its ends."""

    first_id: str | None
    last_id: str | None


def as_list(page: Page[Row], render: Callable[[Row], Wire]) -> ListObject[Wire]:
    return ListObject[Wire](data=[render(item) for item in page.items], has_more=page.has_more)


def as_cursor_list(page: Page[Row], render: Callable[[Row], Wire], id_of: Callable[[Wire], str]) -> CursorList[Wire]:
    data = [render(item) for item in page.items]
    ends = (id_of(data[0]), id_of(data[-1])) if data else (None, None)
    return CursorList[Wire](data=data, has_more=page.has_more, first_id=ends[0], last_id=ends[1])
