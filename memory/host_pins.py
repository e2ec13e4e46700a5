"""Preempted requests' KV in host memory, kept there until they have run again."""

from collections.abc import Iterator
from typing import Any, Final

# Of the host pool. The rest takes what else is evicted: pins never keep device memory from being freed.
PINNED_SHARE: Final = 0.5


class HostPins:
    """Locks on the host copies of preempted requests' KV (HiCache).

    Host memory evicts by class, too: a victim's KV is best-effort cache, the first to go once finished chats
    have filled the host pool. A host lock on the last node of its path keeps the whole path. With
    write-through that is the prompt, copied when it was computed; with write-back everything, on the host yet
    or still on the device. A pin that would take more than PINNED_SHARE of the host pool is not taken.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._pins: dict[str, tuple[int, Any, int]] = {}  # rid -> node, receipt, tokens
        self.tokens = 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._pins)

    @property
    def keeps_preempted(self) -> bool:
        """Whether what a preempted request loses on the device comes back from the host, or most of it."""
        controller = self._tree.cache_controller
        return (
            controller is not None
            and self._tree.host_memory_mode == "cache"
            and controller.write_policy in ("write_through", "write_back")
        )

    def pin(self, rid: str, node_id: int, own_tokens: int) -> None:
        """Pin what the host has, or will have, of the path to a node, if there is room for a pin.

        own_tokens: of the path, what no other request holds. Shared prefixes count once.
        """
        self.release(rid)
        if not self.keeps_preempted:
            return
        tree = self._tree
        path = tree.tree_core.collect_path_info([node_id])[0]
        last = next(
            (node for node in path[::-1] if tree.is_write_back or tree.is_backuped(node.node_id)), None
        )
        room = PINNED_SHARE * int(tree.cache_controller.mem_pool_host.size)
        if last is None or self.tokens + own_tokens > room:
            return
        receipt = tree.inc_host_lock_ref(last.node_id).to_dec_params()
        self._pins[rid] = (last.node_id, receipt, own_tokens)
        self.tokens += own_tokens

    def release(self, rid: str) -> None:
        """Let go of a request's pin; one without is fine."""
        pin = self._pins.pop(rid, None)
        if pin is not None:
            node_id, receipt, tokens = pin
            self._tree.dec_host_lock_ref(node_id, receipt)
            self.tokens -= tokens

    def release_all(self) -> bool:
        """Let go of all; tell whether there was one."""
        had_any = bool(self._pins)
        for rid in list(self._pins):
            self.release(rid)
        return had_any

    def clear(self) -> None:
        """Forget all pins without releasing them: the tree was reset."""
        self._pins.clear()
        self.tokens = 0
