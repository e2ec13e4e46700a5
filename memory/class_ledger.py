"""How many cached tokens are real-time: kept on the host while the tree core splits nodes behind our back.

The Rust core does not tell a node's priority. What it tells is enough: node ids are never reused, a split
gives the *prefix* a new id and leaves the old id on the suffix, and every ancestor of a real-time node is
real-time. So the ledger records the nodes on each path that an RT request inserts, and finds out where an
unrecorded node came from only when it meets one.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol


class PathNode(Protocol):
    """One node of a root-to-node path (SGLang's TreePathNodeInfo)."""

    @property
    def node_id(self) -> int: ...  # noqa: D102
    @property
    def parent_id(self) -> int: ...  # noqa: D102
    @property
    def path_start(self) -> int: ...  # noqa: D102
    @property
    def path_end(self) -> int: ...  # noqa: D102


Path = Sequence[PathNode]
PathOf = Callable[[int], Path]  # node id -> its root-to-node path as it is now
EdgeAt = Callable[[int], Hashable]  # offset on the inserted key -> what tells siblings apart there
_EdgeKey = tuple[int, Hashable]


class ClassLedger:
    """Real-time tokens in the prefix tree, in O(path) per RT insert and O(1) per best-effort eviction.

    Everything in the tree that is not recorded here is best-effort. Invariant: `rt_tokens` is the sum over
    recorded nodes; a recorded node's count includes prefixes split off it that have not been met since.
    """

    def __init__(self) -> None:
        self.rt_tokens = 0
        self._tokens: dict[int, int] = {}
        self._edge_of: dict[int, _EdgeKey] = {}
        self._at_edge: dict[_EdgeKey, set[int]] = {}

    def clear(self) -> None:
        """Forget everything: the tree was reset."""
        self.rt_tokens = 0
        self._tokens.clear()
        self._edge_of.clear()
        self._at_edge.clear()

    def is_rt(self, node_id: int) -> bool:
        """Whether the node is recorded as real-time (a prefix just split off one is not yet)."""
        return node_id in self._tokens

    def record_rt_path(self, path: Path, edge_at: EdgeAt, path_of: PathOf) -> None:
        """Count the nodes of `path`, which an RT request inserted (all on the device), as real-time."""
        for node in path:
            length = node.path_end - node.path_start
            edge = edge_at(node.path_start)
            if node.node_id not in self._tokens:
                self._take_over(node, edge, path_of)
            self._set_edge(node.node_id, (node.parent_id, edge))
            self.rt_tokens += length - self._tokens[node.node_id]
            self._tokens[node.node_id] = length

    def before_eviction(self, node_id: int, path_of: PathOf) -> None:
        """Stop counting a node that is about to leave the device; its path must still be there to ask for."""
        if node_id not in self._tokens:
            return
        below = node_id
        for node in reversed(path_of(node_id)):
            if node.node_id in self._tokens:
                below = node.node_id
                continue
            # Every ancestor was recorded when its RT descendant was inserted: this one was split off since.
            self._split_off(node, below)
            self._set_edge(node.node_id, (node.parent_id, None))
        self.rt_tokens -= self._tokens.pop(node_id)
        self._drop_edge(node_id)

    def _take_over(self, node: PathNode, edge: Hashable, path_of: PathOf) -> None:
        """Start an unrecorded node's count: with what it took from the RT node it was split off, or 0."""
        candidates = self._at_edge.get((node.parent_id, edge), set()) | self._at_edge.get(
            (node.parent_id, None), set()
        )
        for candidate in candidates:
            if any(step.node_id == node.node_id for step in path_of(candidate)):
                self._split_off(node, candidate)
                return
        self._tokens[node.node_id] = 0

    def _split_off(self, prefix: PathNode, suffix_id: int) -> None:
        moved = min(prefix.path_end - prefix.path_start, self._tokens[suffix_id])
        self._tokens[suffix_id] -= moved
        self._tokens[prefix.node_id] = moved
        # The suffix hangs below the prefix now; what its edge starts with is not known.
        self._set_edge(suffix_id, (prefix.node_id, None))

    def _set_edge(self, node_id: int, key: _EdgeKey) -> None:
        if self._edge_of.get(node_id) == key:
            return
        self._drop_edge(node_id)
        self._edge_of[node_id] = key
        self._at_edge.setdefault(key, set()).add(node_id)

    def _drop_edge(self, node_id: int) -> None:
        key = self._edge_of.pop(node_id, None)
        if key is None:
            return
        siblings = self._at_edge[key]
        siblings.discard(node_id)
        if not siblings:
            del self._at_edge[key]
