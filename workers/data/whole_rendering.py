"""Renders a conversation once and finds in its text where each message begins, so that prompt and end of every trained
turn are parts of one text.

That holds if what a template writes for the first messages does not depend on those behind them. It is not assumed of
any template: each is compiled with marks around what could look ahead, and where a rendering did so, or there is no
proof for the template, each beginning is rendered by itself (`workers.data.template`).

The proof. A template is a head, one loop over the messages, and a rest. Of the conversation, head and loop may see: its
first message, messages up to the one that the loop is at, the messages from some place on as something to loop over,
and the loop's count from the beginning. They do not name the field that asks for an answer. The rest may see that field
and what every conversation has, but neither messages nor anything that head or loop have set. So with the first i
messages alone, head and loop do what they did with all, up to where the loop asked for message i, and the rest is the
same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.visitor import NodeTransformer

from service.domain.json import JsonObject
from workers.data.messages import Messages

TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)  # what a template may raise
VAIN_LIMIT = 8  # then a template is taken to look ahead always, which costs time and changes no text
_LOOPED, _AHEAD = "luthier_looped", "luthier_ahead"  # names that no template has
_ASKS = "add_generation_prompt"
_KNOWN = frozenset({"index", "index0", "first", "previtem", "depth", "depth0"})  # of a loop, whatever follows
_ELSEWHERE = (nodes.Block, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_FIRST: JsonObject = {"role": "user", "content": "Hello"}


@dataclass(frozen=True)
class Beginnings:
    """A conversation's text, of which that of its first messages is a part."""

    _whole: str
    _places: list[int]  # in `_whole`, of each message and of what follows the last; -1 where it is not known
    _closing: str  # what follows messages
    _opening: str  # and if an answer shall follow

    def render(self, num_messages: int, *, answer_next: bool) -> str | None:
        """The first `num_messages`, at least one, as the template alone renders them; None if that is not known."""
        place = self._places[num_messages]
        return None if place < 0 else self._whole[:place] + (self._opening if answer_next else self._closing)


class WholeRendering:
    """One template, compiled with marks. `context` is what every rendering has."""

    def __init__(self, template: Template, context: JsonObject, opening: str) -> None:
        self._template = template
        self._context = context
        self._opening = opening
        self._in_vain = 0  # renderings one after another in which the template looked ahead

    @classmethod
    def of(cls, environment: Environment, source: str, context: JsonObject) -> "WholeRendering | None":
        """None where the template has another shape than the proof's, or wants another first message than a user's."""
        template = _compiled(environment, source)
        if template is None:
            return None
        try:
            asked = cls(template, context, "")._rendered([_FIRST], answer_next=True)
        except TEMPLATE_ERRORS:
            return None
        return None if asked is None else cls(template, context, asked._closing)

    def render(self, messages: Messages) -> Beginnings | None:
        """The text of messages that are texts alone; None where the template looked ahead. Raises what it raises."""
        if self._in_vain == VAIN_LIMIT:
            return None
        beginnings = self._rendered(messages, answer_next=False)
        self._in_vain = self._in_vain + 1 if beginnings is None else 0
        return beginnings

    def _rendered(self, messages: Messages, *, answer_next: bool) -> Beginnings | None:
        written: list[str] = []
        seen = _Seen(messages, written)
        names = self._context | {
            "messages": _Shown(seen),
            _ASKS: answer_next,
            _LOOPED: seen.looped,
            _AHEAD: seen.saw_ahead,
        }
        for text in self._template.root_render_func(self._template.new_context(names, shared=True)):
            written.append(text)  # one by one: `seen` counts them
        if seen.ahead or not seen.ended:
            return None
        places, length, begin = [], 0, 0
        for count in seen.counts:
            if count >= 0:
                length, begin = length + sum(map(len, written[begin:count])), count
            places.append(length if count >= 0 else -1)
        whole = "".join(written)
        return Beginnings(whole, places, whole[length:], self._opening)


class _Seen:
    """What a rendering saw of the messages, and how much it had written when the loop asked for each of them."""

    def __init__(self, messages: Messages, written: list[str]) -> None:
        self.messages = messages
        self.counts = [-1] * (len(messages) + 1)
        self.reached = 1  # messages that may be seen
        self.ahead = False  # whether others were
        self.ended = False  # whether the loop has come to its end
        self._written = written

    def looped(self, shown: object) -> "_Looped | object":
        """What the template's loop goes through instead of `shown`."""
        if not isinstance(shown, _Shown) or self.ended:
            self.ahead = True
            return shown
        return _Looped(self, shown.begin)

    def saw_ahead(self, value: object) -> object:
        self.ahead = True
        return value

    def pass_by(self, begin: int) -> Iterator[JsonObject]:
        for place in range(begin, len(self.messages)):
            self.counts[place] = len(self._written)
            self.reached = max(self.reached, place + 1)
            yield self.messages[place]
        self.counts[-1] = len(self._written)
        self.ended = True


class _Looped:
    """The messages as the template's loop gets them."""

    def __init__(self, seen: _Seen, begin: int) -> None:
        self._seen = seen
        self._begin = begin

    def __iter__(self) -> Iterator[JsonObject]:
        return self._seen.pass_by(self._begin)

    def __len__(self) -> int:
        self._seen.ahead = True
        return len(self._seen.messages) - self._begin


class _Shown:
    """The messages from `begin` on as a template gets them. Whatever could show how many there are is noted."""

    def __init__(self, seen: _Seen, begin: int = 0) -> None:
        self._seen = seen
        self.begin = begin

    def __getitem__(self, asked: object) -> object:
        if isinstance(asked, slice):
            if type(asked.start) is int and asked.start >= 0 and asked.stop is None and asked.step is None:
                return _Shown(self._seen, self.begin + asked.start)
        elif type(asked) is int and asked >= 0 and self.begin + asked < self._seen.reached:
            return self._seen.messages[self.begin + asked]
        return self._all()[asked]  # type: ignore[call-overload]  # raises what a list raises

    def __bool__(self) -> bool:
        return self.begin == 0 or bool(self._all())

    def __iter__(self) -> Iterator[JsonObject]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == other

    def __hash__(self) -> int:
        raise TypeError("unhashable type: 'list'")

    def __str__(self) -> str:
        return str(self._all())

    def _all(self) -> Messages:
        self._seen.ahead = True
        return self._seen.messages[self.begin :]


@lru_cache(maxsize=32)
def _compiled(environment: Environment, source: str) -> Template | None:
    marked = _marked(environment, source)
    return None if marked is None else environment.from_string(marked)


def _marked(environment: Environment, source: str) -> nodes.Template | None:
    """The template with marks; None where it is not a head, a loop and a rest as described above."""
    template = environment.parse(source)
    loops = [place for place, part in enumerate(template.body) if isinstance(part, nodes.For)]
    if not loops or any(template.find_all(_ELSEWHERE)):
        return None
    before, rest = nodes.Template(template.body[: loops[-1] + 1]), nodes.Template(template.body[loops[-1] + 1 :])
    loop = template.body[loops[-1]]
    assert isinstance(loop, nodes.For) and isinstance(loop.iter, nodes.Expr)
    if loop.recursive or loop.test is not None or loop.else_:
        return None
    names, later = list(before.find_all(nodes.Name)), {name.name for name in rest.find_all(nodes.Name)}
    set_before = {name.name for name in names if name.ctx != "load"}
    set_before |= {found.name for found in before.find_all(nodes.NSRef)}
    set_before |= {found.name for found in before.find_all(nodes.Macro)}
    asks = any(name.name == _ASKS for name in names) or _ASKS in set_before
    if asks or "loop" in set_before or later & (set_before | {"messages", "loop", "self", "caller"}):
        return None
    marked = _Marking().visit(template)
    assert isinstance(marked, nodes.Template)
    loop.iter = _called(_LOOPED, loop.iter)
    return marked.set_lineno(1).set_environment(environment)  # type: ignore[return-value]  # the template itself


class _Marking(NodeTransformer):
    """Marks whatever a loop knows of what follows."""

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Expr:
        if isinstance(node.node, nodes.Name) and node.node.name == "loop" and node.attr in _KNOWN:
            return node
        self.generic_visit(node)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        return _called(_AHEAD, node) if node.name == "loop" else node


def _called(name: str, value: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load", lineno=1), [value], [], None, None, lineno=1)
