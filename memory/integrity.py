"""Books that balance: every KV page in exactly one place, every lock accounted for, class totals right."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from bros_sglang.memory.pool_use import PoolUse, pool_use
from bros_sglang.memory.radix_cache import BrosRadixCache

_SHOWN = 8  # page numbers given in a message


class IntegrityError(AssertionError):
    """The books do not balance; the message has the numbers."""


def check_integrity(
    allocator: Any, tree: BrosRadixCache, running: Iterable[Any], waiting: Iterable[Any] = ()
) -> PoolUse:
    """Add everything up; returns the counts, or raises IntegrityError naming what is wrong.

    running: every request that holds a row (running, parked, mid-prefill, in flight); named twice is fine.
    waiting: queued requests, preempted ones included; they must hold nothing but what the tree holds for
    them. Reads the device: for tests, replay and debugging. Call it where a pass begins
    (`Scheduler.get_next_batch_to_run`), with the requests of the running batch, the last batch and the parked
    ones, and the one mid-prefill; inside a pass requests are on their way from one to the other.
    """
    if allocator.free_group is not None:
        raise IntegrityError("check_integrity was called inside a free group: frees are still pending")
    holders = list({id(req.kv): req for req in running if req.kv.holds_kv}.values())
    queued = list({id(req): req for req in waiting}.values())
    _check_rows(tree, holders)
    _check_pages(allocator, tree, holders)
    _check_waiting(tree, holders, queued)
    _check_locks(tree, holders)
    return _check_totals(allocator, tree, holders)


def _check_rows(tree: BrosRadixCache, holders: Sequence[Any]) -> None:
    rows = [req.kv.req_pool_idx for req in holders]
    sessions = [kv.req_pool_idx for kv in tree.session_records().values() if kv.holds_kv]
    pool = tree.req_to_token_pool
    everything = sorted([*rows, *sessions, *pool.free_slots])
    if len(set(rows)) != len(rows):
        raise IntegrityError(f"two requests share a row: {sorted(rows)}")
    if everything != list(range(1, pool.size + 1)):
        lost = sorted(set(range(1, pool.size + 1)) - set(everything))
        raise IntegrityError(
            f"request rows: {len(pool.free_slots)} free + {len(rows)} held + {len(sessions)} of sessions "
            f"are not {pool.size}; lost rows {lost[:_SHOWN]}"
        )
    for req in holders:
        kv = req.kv
        if not 0 <= kv.cache_protected_len <= kv.kv_committed_len <= kv.kv_allocated_len:
            raise IntegrityError(
                f"request {req.rid}: protected {kv.cache_protected_len} <= committed {kv.kv_committed_len} "
                f"<= allocated {kv.kv_allocated_len} does not hold"
            )


def _row_pages(tree: BrosRadixCache, kv: Any, start: int, end: int, page: int) -> torch.Tensor:
    row = tree.req_to_token_pool.req_to_token[kv.req_pool_idx, start:end:page]
    return (row.to(torch.int64) // page).cpu()


def _check_pages(allocator: Any, tree: BrosRadixCache, holders: Sequence[Any]) -> None:
    page = int(allocator.page_size)
    num_pages = allocator.size // page
    places: dict[str, torch.Tensor] = {
        "free": allocator.get_all_free_pages().cpu(),
        "tree": tree.all_values_flatten().cpu().view(-1)[::page] // page,
    }
    for req in holders:
        kv = req.kv
        places[f"request {req.rid}"] = _row_pages(tree, kv, kv.cache_protected_len, kv.kv_allocated_len, page)
    for name, kv in tree.session_records().items():
        if kv.holds_kv:
            places[f"session {name}"] = _row_pages(
                tree, kv, kv.cache_protected_len, kv.kv_allocated_len, page
            )
    counts = torch.zeros(num_pages + 1, dtype=torch.int64)
    for name, pages in places.items():
        if pages.numel() and (int(pages.min()) < 1 or int(pages.max()) > num_pages):
            raise IntegrityError(f"{name} has a page outside 1..{num_pages} (0 is padding)")
        counts += torch.bincount(pages, minlength=num_pages + 1)
    counts[0] = 1
    if bool((counts == 1).all()):
        _check_prefixes(tree, holders, places["tree"], page)
        return
    lost = torch.nonzero(counts == 0).view(-1).tolist()
    twice = torch.nonzero(counts > 1).view(-1).tolist()
    owners = {
        number: [name for name, pages in places.items() if bool((pages == number).any())]
        for number in twice[:_SHOWN]
    }
    sizes = ", ".join(f"{name} {pages.numel()}" for name, pages in places.items())
    raise IntegrityError(
        f"{num_pages} pages: {len(lost)} lost {lost[:_SHOWN]}, {len(twice)} in several places {owners}; "
        f"{sizes}"
    )


def _check_prefixes(tree: BrosRadixCache, holders: Sequence[Any], cached: torch.Tensor, page: int) -> None:
    for req in holders:
        prefix = _row_pages(tree, req.kv, 0, req.kv.cache_protected_len, page)
        if not bool(torch.isin(prefix, cached).all()):
            raise IntegrityError(
                f"request {req.rid}: {int((~torch.isin(prefix, cached)).sum())} pages of its cached prefix "
                f"({req.kv.cache_protected_len} tokens) are not in the tree"
            )


def _check_waiting(tree: BrosRadixCache, holders: Sequence[Any], queued: Sequence[Any]) -> None:
    for req in queued:
        if req.kv.holds_kv or req.lock is not None:
            raise IntegrityError(
                f"waiting request {req.rid} holds {req.kv.kv_allocated_len} tokens of KV"
                + (" and a lock in the tree" if req.lock is not None else "")
            )
    # A request that was resumed keeps its entry until its first pass is checkpointed.
    known = {req.rid for req in (*queued, *holders)}
    strays = [entry.rid for entry in tree.held.ledger.resume_order() if entry.rid not in known]
    if strays:
        raise IntegrityError(f"KV is held for requests that neither wait nor run: {strays[:_SHOWN]}")
    pinned = [rid for rid in tree.held.pins if rid not in tree.held.ledger]
    if pinned:
        raise IntegrityError(f"host memory is pinned for requests that hold nothing: {pinned[:_SHOWN]}")


def _check_locks(tree: BrosRadixCache, holders: Sequence[Any]) -> None:
    if tree.disable:
        return
    locks = [req.lock for req in holders if req.lock is not None] + tree.held.locks()
    nodes = {
        node.node_id: node.path_end - node.path_start
        for path in tree.tree_core.collect_path_info([lock.node for lock in locks])
        for node in path
    }
    expected, protected = sum(nodes.values()), int(tree.protected_size())
    # Host transfers and sessions lock nodes of their own.
    others = tree.cache_controller is not None or bool(tree.session_records())
    if protected < expected or (protected > expected and not others):
        raise IntegrityError(
            f"{protected} tokens are locked in the tree, {expected} by {len(holders)} requests and "
            f"{len(tree.held.ledger)} preempted ones"
        )


def _check_totals(allocator: Any, tree: BrosRadixCache, holders: Sequence[Any]) -> PoolUse:
    use = pool_use(allocator, tree, holders)
    cached = int(tree.all_values_flatten().numel())
    if use.rt_cached < 0 or use.be_cached < 0 or use.rt_cached + use.be_cached != cached:
        raise IntegrityError(
            f"the tree holds {cached} tokens, {use.rt_cached} real-time and {use.be_cached} best-effort"
        )
    sessions = sum(
        -(-kv.kv_allocated_len // allocator.page_size) * allocator.page_size - kv.cache_protected_len
        for kv in tree.session_records().values()
        if kv.holds_kv
    )
    whole = allocator.size // allocator.page_size * allocator.page_size
    if use.total + sessions != whole:
        raise IntegrityError(
            f"{use} and {sessions} tokens of sessions add up to {use.total + sessions}, not {whole}"
        )
    if not 0 <= use.held <= tree.held.protected_tokens:
        raise IntegrityError(f"{use.held} tokens held, {tree.held.protected_tokens} under the locks")
    return use
