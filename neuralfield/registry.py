"""Names for classes: one table that the Python API, the configuration files and saved fields all go through."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from neuralfield.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from names to classes that builds instances and explains what it does not know.

    **Arguments**

    - `kind`: what the entries are, in the words of an error message ("encoding").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that enters a class under ``name``.

        Raises :class:`ConfigError` when another class already has that name.
        """

        def enter(cls: type[T]) -> type[T]:
            taken = self._classes.get(name)
            # The same class may come again (a notebook cell that is run twice); another one may not.
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ConfigError(f"{self.kind} '{name}' is already {taken.__module__}.{taken.__qualname__}")
            self._classes[name] = cls
            return cls

        return enter

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def get(self, name: str) -> type[T]:
        """The class registered as ``name``; an unknown name is an error that lists the known ones."""
        if name not in self._classes:
            known = ", ".join(self._classes)
            raise ConfigError(f"unknown {self.kind} '{name}' (known: {known}){nearest(str(name), self._classes)}")
        return self._classes[name]

    def find(self, instance: object) -> str | None:
        """The name under which the class of ``instance`` is registered, or None."""
        return next((name for name, cls in self._classes.items() if type(instance) is cls), None)

    def name_of(self, instance: object) -> str:
        """The name under which the class of ``instance`` is registered."""
        if (name := self.find(instance)) is not None:
            return name
        raise ConfigError(
            f"{type(instance).__qualname__} is not a registered {self.kind}; "
            f"decorate the class with @register('some_name') to save or configure it"
        )

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword options of the class registered as ``name``, in the order of its signature."""
        parameters = inspect.signature(self.get(name)).parameters
        return {k: p for k, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    def build(self, name: str, **options: Any) -> T:
        """``cls(**options)`` for the class registered as ``name``; an unknown option names the nearest known one."""
        known = self.options(name)
        for option in options:
            if option not in known:
                raise ConfigError(
                    f"{self.kind} '{name}' has no option '{option}' (known: {', '.join(known)}){nearest(option, known)}"
                )
        missing = [k for k, p in known.items() if p.default is p.empty and k not in options]
        if missing:
            raise ConfigError(f"{self.kind} '{name}' needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
        return self.get(name)(**options)


class Configurable:
    """Remembers the arguments that an instance was built with, as ``config``, so that it can be built again.

    Subclasses write an ordinary ``__init__``; the arguments (defaults filled in) are recorded around it. They have to be
    what JSON can hold: numbers, strings, booleans, None, and lists of these.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return dict(self.__dict__.get("_config", {}))


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_config" not in self.__dict__:  # the outermost class of a hierarchy is the one to build again
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = dict(list(bound.arguments.items())[1:])
            self.__dict__["_config"] = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
        init(self, *args, **kwargs)

    return wrapper
