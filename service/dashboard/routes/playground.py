"""The playground: a base and a tuned model side by side. Its script calls the API's chat completions itself."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import page
from service.dashboard.web.visitors import Visitor
from service.domain.model import is_model_name
from service.operations import models

router = APIRouter(prefix="/playground")


@router.get("")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, tuned: str = "", base: str = "") -> Response:
    """The models to choose from; the newest tuned one at the right, unless another is asked for."""
    names = [model.id for model in await models.list_all(ctx, visitor.caller)]
    bases = [name for name in names if not is_model_name(name)]
    others = [name for name in names if is_model_name(name)]
    if tuned and tuned not in names:
        names.append(tuned)  # such as an alias of a model; the API says what it is
    right = tuned or (others[-1] if others else bases[0])
    left = base or next((name for name in bases if right.startswith(f"ft:{name}:")), bases[0])
    values = {"models": names, "left": left, "right": right, "has_tuned": bool(others)}
    return page(request, "playground.html", visitor, values)
