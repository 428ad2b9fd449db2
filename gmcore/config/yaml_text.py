"""YAML of bounded size and depth, in which every mistake has a place.

Short texts can stand for huge values: an alias repeats everything below its anchor, and aliases nest. What a text
expands to is therefore counted before any value is made of it.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import ConstructorError

from gmcore.errors import excerpt

MAX_BYTES = 2**20
"""Size of a configuration file."""

MAX_NODES = 20_000
"""Keys and values of a configuration, with everything that its aliases repeat."""

MAX_DEPTH = 32
"""Levels of lists and mappings inside each other; configurations have five."""


def load_yaml(text: str) -> Any:
    """Return the content of a text, None if there is none.

    Raises
    ------
    yaml.YAMLError : not YAML, a value that does not fit its tag, a key given twice, too large, or too deep.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    """Loader that refuses duplicate keys, of which the plain loader silently keeps the last, and whatever expands."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._n_nodes = 0
        self._sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Compose a node unless there are too many, or they lie too deep."""
        start, alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        self._depth += 1
        self._n_nodes += 1
        _check_size(self._n_nodes, self._depth, start)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias:
            self._sizes[id(node)] = self._expanded(node)
            _check_size(*self._sizes[id(node)], start)
        elif id(node) not in self._sizes:  # its anchor is not complete yet
            raise ConstructorError(None, None, "a value must not contain itself", start)
        return node

    def _expanded(self, node: yaml.Node) -> tuple[int, int]:
        """Return how many nodes this one is with its aliases written out, and how many levels."""
        below = [] if isinstance(node, yaml.ScalarNode) else node.value
        sizes = [self._sizes[id(part)] for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))]
        return 1 + sum(n for n, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; one that does not fit its tag is refused at its place."""
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # int("") and the like: ValueError, KeyError, IndexError, AttributeError, ...
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(
                None, None, f"{excerpt(node.value)} is not a valid {kind}", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a mapping after checking that its keys are unique."""
        if not isinstance(node, yaml.MappingNode):
            raise ConstructorError(None, None, "expected keys and values here", node.start_mark)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {excerpt(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_size(n_nodes: int, depth: int, start: yaml.Mark) -> None:
    if depth > MAX_DEPTH:
        message = f"lists and mappings may lie at most {MAX_DEPTH} levels inside each other"
    elif n_nodes > MAX_NODES:
        message = f"a configuration may hold at most {MAX_NODES} values, with all that its aliases repeat"
    else:
        return
    raise ConstructorError(None, None, message, start)
