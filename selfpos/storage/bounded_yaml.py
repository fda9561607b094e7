"""PyYAML's safe loader within bounds of depth, size and digits."""

from __future__ import annotations

from typing import Any

import yaml

from selfpos.storage.documents import MOST_DEPTH, bounded_integer, too_deep

MOST_NODES = 200_000  # of a document, its aliases written out


class Bounded(yaml.SafeLoader):
    """Refuses what is too deep or too large, contains itself, or has a key twice. Raises ValueError.

    It counts while nodes are composed, before any value is made of them.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.sizes: dict[int, tuple[int, int]] = {}  # node → nodes and levels in it, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise too_deep()
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and isinstance(node, yaml.CollectionNode) and id(node) not in self.sizes:
            raise ValueError(f"the value at line {node.start_mark.line + 1} contains itself")
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        self._measure(node, node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        self._refuse_twice(node)
        self._measure(node, [child for pair in node.value for child in pair])
        return node

    def _measure(self, node: yaml.Node, inner: list[yaml.Node]) -> None:
        below = [self.sizes.get(id(child), (1, 1)) for child in inner]
        nodes, levels = (1 + sum(size for size, _ in below), 1 + max((deep for _, deep in below), default=0))
        if nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES:,} values, its aliases written out")
        if levels > MOST_DEPTH:
            raise too_deep()
        self.sizes[id(node)] = nodes, levels

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is there twice")
            seen.add((key.tag, str(key.value)))

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: Any) -> list[str]:
        line = start_mark.line + 1
        try:
            text = "".join(super().scan_flow_scalar_non_spaces(double, start_mark))
        except (ValueError, OverflowError):  # of chr
            raise ValueError(f"the text at line {line} has an escape beyond Unicode") from None
        try:
            # a pair of surrogates is one letter, as in JSON
            return [text.encode("utf-16", "surrogatepass").decode("utf-16")]
        except UnicodeDecodeError:
            raise ValueError(f"the text at line {line} has half a surrogate pair") from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        bounded_integer("0" * len(node.value))
        return int(super().construct_yaml_int(node))


Bounded.add_constructor("tag:yaml.org,2002:int", Bounded.construct_yaml_int)
