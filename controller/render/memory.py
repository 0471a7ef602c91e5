"""What a rendering leaves to the next: views of rules that are the same, and the text that templates made of them."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from controller.remembered import Remembered
from controller.render.layout import compact

T = TypeVar("T")


class _Macro(Protocol):
    name: str

    def __call__(self, *arguments: object) -> str: ...


@dataclass
class Memory:
    """Of one sequence of renderings of one data plane."""

    _views: Remembered[object] = field(default_factory=Remembered)
    _texts: Remembered[str] = field(default_factory=Remembered)
    _around: tuple[object, ...] = ()

    def turn(self, *around: object) -> None:
        """A rendering begins. Views depend on what is `around` too; where that is different all are made anew."""
        if around != self._around:
            self._views = Remembered()
            self._around = around
        self._views.turn()
        self._texts.turn()

    def view(self, key: Hashable, source: object, make: Callable[[], T]) -> T:
        """The view that was made of the same object before, or is made now."""
        return cast(T, self._views.get(key, (source,), make))

    def block(self, macro: _Macro, view: object, *more: object, key: Hashable) -> str:
        """The same for one of several places where a view stands. `more` follows from the view and `key`."""
        return self._texts.get((macro.name, id(view), key), (view,), lambda: compact(macro(view, *more)).strip("\n"))

    def text(self, macro: _Macro, view: object, *more: object) -> str:
        """What a macro says of a view. `more` follows from the view."""
        return self._texts.get((macro.name, id(view)), (view,), lambda: compact(macro(view, *more)).rstrip("\n"))
