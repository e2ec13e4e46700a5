"""SGLang's PrefillAdder with the step's plan in it: admission by class, and room taken from best-effort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS, AddReqResult, PrefillAdder

from bros_sglang.memory.future_use import FutureUse, Row

if TYPE_CHECKING:
    from bros_sglang.scheduler.scheduler import BrosScheduler


class BrosPrefillAdder(PrefillAdder):  # type: ignore[misc] # SGLang is untyped
    """Admits real-time requests first and best-effort ones into what the plan lends.

    The chunk budget (`rem_chunk_tokens`) starts as the real-time share of the plan; at the first best-effort
    candidate it becomes the best-effort share. A real-time request that finds no tokens or no slot takes
    them from running best-effort requests at once.
    """

    rem_chunk_tokens: int | None

    def __init__(self, *args: Any, scheduler: BrosScheduler, **kwargs: Any) -> None:
        self.scheduler = scheduler  # the base class asks it for reservations
        super().__init__(*args, **kwargs)
        plan = scheduler.plan
        self._be_tokens = plan.be_prefill_tokens
        if scheduler.owed_room is not None:
            # Real-time prefill that waits for room may have been planned for the whole chunk.
            self._be_tokens = self.rem_chunk_tokens or self._be_tokens
        self._in_be_share = False
        self._future: FutureUse | None = None  # of all requests, once a best-effort candidate is looked at
        self._rt_future: FutureUse | None = None  # of real-time requests, once one of them is looked at
        # The scheduler has made room for the chunk in flight (`BrosScheduler._make_room_for_chunk`).
        self.memory_budget.available_chunk_tokens = lambda chunk_limit: chunk_limit
        if self.rem_chunk_tokens is not None:
            # A best-effort chunk is in flight only where no real-time request waits (it gave way otherwise).
            self.rem_chunk_tokens = plan.rt_prefill_tokens or plan.be_prefill_tokens

    def _enter_be_share(self) -> None:
        """Switch the chunk budget from real-time to best-effort work."""
        if self._in_be_share or self.rem_chunk_tokens is None:
            return
        self._in_be_share = True
        used = sum(req.extend_len for req in self.can_run_list if not req.bros.is_rt)
        self.rem_chunk_tokens = max(0, self._be_tokens - used)

    def add_one_req(self, req: Any, has_chunked_req: bool, truncation_align_size: int | None) -> Any:  # noqa: FBT001
        """Admit one request, or say why not (`sglang/srt/managers/schedule_policy.py`)."""
        if not req.bros.is_rt:
            self._enter_be_share()
            if self.rem_chunk_tokens is not None and self.rem_chunk_tokens <= 0:
                return AddReqResult.OTHER
        if self._would_be_second_chunk(req, has_chunked_req):
            return AddReqResult.OTHER
        if req.bros.is_rt:
            verdict = AddReqResult.NO_TOKEN
            if self._real_time_fits(req):
                verdict = super().add_one_req(req, has_chunked_req, truncation_align_size)
                if (
                    verdict is AddReqResult.NO_TOKEN
                    and self._not_added(req)
                    and not self.scheduler.can_wait_for_room(req)
                    and self._make_room(req)
                ):
                    verdict = super().add_one_req(req, has_chunked_req, truncation_align_size)
            if not self._not_added(req):
                self._count(req)
            elif self.scheduler.decision is not None:
                self.scheduler.decision.refused = verdict.name
            return verdict
        alone = not self.can_run_list and self.running_batch.is_empty() and self.scheduler.parked is None
        on_floor = self.scheduler.owed_room is req
        if alone or on_floor:
            lacking = self._prompt_demand(req) + 1 - int(self.rem_total_tokens)
        else:
            lacking = self._best_effort_lacks(req)
        # With nothing running, somebody has to start: other preempted requests give way to the first.
        if lacking > 0 and not (alone and self.tree_cache.held.give_up(lacking, keep_rid=req.rid)):
            return AddReqResult.NO_TOKEN
        verdict = super().add_one_req(req, has_chunked_req, truncation_align_size)
        if not self._not_added(req):
            req.bros.on_floor = on_floor
            self._count(req)
        return verdict

    def _count(self, req: Any) -> None:
        """Add an admitted request to the futures that are in use in this pass."""
        for future in (self._future, self._rt_future if req.bros.is_rt else None):
            if future is not None:
                future.add(self.scheduler.room.row(req))

    def budget_state(self) -> Any:
        """Keep the loop going past a spent real-time share while the best-effort share is open."""
        state = super().budget_state()
        if state is AddReqResult.NO_TOKEN and self._rt_may_take_more():
            state = self._compute_state()
        if (
            state is AddReqResult.OTHER
            and not self._in_be_share
            and self._be_tokens > 0
            and self.rem_input_tokens > 0
            and self.new_chunked_req is None
            and (
                self.scheduler.owed_room is not None or not self.scheduler.rt_left_waiting(self.can_run_list)
            )
        ):
            return AddReqResult.CONTINUE
        return state

    def _rt_may_take_more(self) -> bool:
        """Say whether the next candidate may be a real-time one, which has room that the budget lacks."""
        return not self._in_be_share and self.scheduler.rt_left_waiting(self.can_run_list)

    def _compute_state(self) -> Any:
        """Return what `budget_state` says of the budgets of computation alone."""
        if self.rem_input_tokens <= 0 or (self.rem_chunk_tokens is not None and self.rem_chunk_tokens <= 0):
            return AddReqResult.OTHER
        return AddReqResult.CONTINUE

    def preempt_to_schedule(self, req: Any) -> bool:
        """Say whether a request slot is there, taking one from best-effort for a real-time request."""
        free = self.scheduler.free_request_slots(self.can_run_list, self.running_batch)
        if free > 0:
            return True
        if not req.bros.is_rt:
            return False
        return self.scheduler.preempt_for(self, tokens=0, slots=1) > 0

    def _would_be_second_chunk(self, req: Any, has_chunked_req: bool) -> bool:  # noqa: FBT001
        """Say whether a request's prefill would stay unfinished beside another; SGLang tracks only one."""
        new = len(req.full_untruncated_fill_ids) - req.prefix_len
        chunk_taken = has_chunked_req or self.new_chunked_req is not None
        return chunk_taken and new > (self.rem_chunk_tokens or 0)

    def _not_added(self, req: Any) -> bool:
        return not (self.can_run_list and self.can_run_list[-1] is req)

    def _get_running_request_total_token_offset(self, req: Any) -> int:  # noqa: ARG002 (SGLang's signature)
        """Reserve nothing one by one: `_best_effort_lacks` counts all that running requests will hold."""
        return 0

    def _check_prefill_budget(
        self, req: Any, *, extend_input_len: int, total_tokens: int, **kwargs: Any
    ) -> Any:
        """Count a candidate's prompt alone, since its output was looked at before, and in tokens, not pages.

        SGLang compares whole pages with the chunk budget. The plan counts tokens: a prompt that fits it would
        be cut at its last full page, and one shorter than a page never start.
        """
        fits, chunk_limit = super()._check_prefill_budget(
            req, extend_input_len=extend_input_len, total_tokens=total_tokens - self._limit(req), **kwargs
        )
        if not fits and req.bros.is_rt and self._missing(req) <= 0:
            fits, chunk_limit = True, kwargs["chunk_limit"]  # there is room for its first chunk
        if chunk_limit is not None and extend_input_len <= chunk_limit:
            chunk_limit = max(chunk_limit, self.ceil_paged_tokens(extend_input_len))
        return fits, chunk_limit

    def _update_prefill_budget(
        self, prefix_len: int, extend_input_len: int, max_new_tokens: int, *args: Any, **kwargs: Any
    ) -> None:
        """Reserve the prompt alone; charge what the step computes, where SGLang charges whole pages."""
        del max_new_tokens
        super()._update_prefill_budget(prefix_len, extend_input_len, 0, *args, **kwargs)
        unfilled = self.ceil_paged_tokens(extend_input_len) - extend_input_len
        self.rem_input_tokens += unfilled
        if self.rem_chunk_tokens is not None:
            self.rem_chunk_tokens += unfilled

    @staticmethod
    def _limit(req: Any) -> int:
        """Return the output that SGLang counts for a candidate: its limit, clipped."""
        return int(min(max(req.sampling_params.max_new_tokens - len(req.output_ids), 0), CLIP_MAX_NEW_TOKENS))

    def _prompt_demand(self, req: Any) -> int:
        """Return the tokens that a candidate takes at once."""
        new = self.ceil_paged_tokens(len(req.full_untruncated_fill_ids) - req.prefix_len)
        return int(new + self.per_req_token_overhead)

    # -- room

    def _others(self) -> list[Any]:
        """Return the requests that hold room or were given it in this pass."""
        parked = self.scheduler.parked
        return [*self.running_batch.reqs, *(parked.reqs if parked is not None else ()), *self.can_run_list]

    def _unfinished(self) -> int:
        """Return the prompt tokens that unfinished prefills will need room for after this step."""
        chunked = {
            id(req): req for req in (self.scheduler.chunked_req, self.new_chunked_req) if req is not None
        }
        in_step = {id(req) for req in self.can_run_list}
        return sum(
            len(req.full_untruncated_fill_ids) - (req.extend_end if id(req) in in_step else req.prefix_len)
            for req in chunked.values()
        )

    def _best_effort_lacks(self, req: Any) -> int:
        """Return how many tokens a best-effort candidate's admission lacks; 0 or less: it fits.

        It fits if the pool, at its fullest, still holds everything that runs, the candidate, and the
        real-time requests that may arrive until then.
        """
        scheduler = self.scheduler
        if self._future is None:
            reqs = {
                id(other): other for other in (*self._others(), scheduler.chunked_req) if other is not None
            }
            self._future = scheduler.room.future(
                reqs.values(),
                tree=self.tree_cache,
                pool_tokens=scheduler.max_total_num_tokens,
                now_s=scheduler.clock.now_s,
            )
        new = self._prompt_demand(req)
        growth = self._future.growth_with(Row(scheduler.room.expected_remaining(req), new))
        kept = scheduler.room.rt_cache_kept(self.tree_cache, scheduler.max_total_num_tokens)
        return int(growth) + self._unfinished() + kept + 1 - int(self.rem_total_tokens)

    def _real_time_fits(self, req: Any) -> bool:
        """Say whether real-time requests alone, with this one, stay within the pool at their fullest.

        One that does not fit waits, rather than cost another real-time request its place later on.
        """
        others = self._others()
        if not any(other.bros.is_rt for other in others):
            return True
        if self._rt_future is None:
            self._rt_future = self.scheduler.room.real_time_future(others)
        best_effort = sum(
            other.kv.kv_allocated_len - other.bros.shared_tokens for other in others if not other.bros.is_rt
        )
        room = int(self.rem_total_tokens) + int(self.tree_cache.held.tokens) + best_effort
        owed = self.scheduler.owed_room
        if owed is not None:
            # Until it fits, what real-time requests give back is left for it.
            room -= len(owed.origin_input_ids) + len(owed.output_ids) + self.per_req_token_overhead
        new = self._prompt_demand(req)
        growth = self._rt_future.growth_with(Row(self.scheduler.room.expected_remaining(req), new))
        return bool(growth + self._unfinished() < room)

    def _make_room(self, req: Any) -> bool:
        """Take room for a real-time prompt: what preempted requests hold first, then from running ones."""
        held = self.tree_cache.held
        with self._lock_node(req.last_node):  # its own prefix is no room for it
            missing = self._missing(req)
            if missing > 0 and held.give_up(missing, keep_rid=req.rid):
                missing = self._missing(req)
            if missing > 0 and self.scheduler.preempt_for(self, tokens=missing, slots=0):
                # A victim's KV is held for it; what this request needs of it goes at once.
                held.give_up(max(self._missing(req), 0), keep_rid=req.rid)
                missing = self._missing(req)
        return missing <= 0

    def _missing(self, req: Any) -> int:
        """Return the tokens that a real-time prompt lacks in this step: it takes its room chunk by chunk."""
        new = self._prompt_demand(req)
        if self.rem_chunk_tokens is not None:
            chunk = self.ceil_paged_tokens(max(self.rem_chunk_tokens, 0)) + self.per_req_token_overhead
            new = min(new, int(chunk))
        return new + 1 - int(self.rem_total_tokens)
