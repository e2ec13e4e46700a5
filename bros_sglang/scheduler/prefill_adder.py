"""SGLang's PrefillAdder with the step's plan in it: admission by class, and room taken from best-effort."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS, AddReqResult, PrefillAdder

# A real-time request is admitted with room for its prompt and so many tokens of its answer.
_GROWTH_TOKENS = 32

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
        self._in_be_share = False
        self._reserve: int | None = None  # tokens that best-effort admission leaves alone
        # The scheduler has made room for the chunk in flight (`BrosScheduler._make_room_for_chunk`).
        self.memory_budget.available_chunk_tokens = lambda chunk_limit: chunk_limit
        self._promised = scheduler.promised_to_chunk()  # to a prefill in flight, not in the budget
        self._best_effort_tokens: int | None = None  # KV and reservations of running best-effort requests
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
            verdict = super().add_one_req(req, has_chunked_req, truncation_align_size)
            if verdict is AddReqResult.NO_TOKEN and self._not_added(req) and self._make_room(req):
                verdict = super().add_one_req(req, has_chunked_req, truncation_align_size)
            if self._not_added(req) and self.scheduler.decision is not None:
                self.scheduler.decision.refused = verdict.name
            return verdict
        if self._reserve is None:
            self._reserve = self.scheduler.best_effort_reserve()
        alone = not self.can_run_list and self.running_batch.is_empty() and self.scheduler.parked is None
        lacking = self._total_demand(req) + (0 if alone else self._reserve) - int(self.rem_total_tokens) + 1
        lacking += self._promised
        # With nothing running, somebody has to start: other preempted requests give way to the first.
        if lacking > 0 and not (alone and self.tree_cache.held.give_up(lacking, keep_rid=req.rid)):
            return AddReqResult.NO_TOKEN
        return super().add_one_req(req, has_chunked_req, truncation_align_size)

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
            and not self.scheduler.rt_left_waiting(self.can_run_list)
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

    def _get_running_request_total_token_offset(self, req: Any) -> int:
        """Return the tokens reserved for what a running request still makes (expected, not its limit)."""
        return self.scheduler.room.expected_remaining(req)

    def _check_prefill_budget(
        self, req: Any, *, extend_input_len: int, total_tokens: int, **kwargs: Any
    ) -> Any:
        """Count a candidate's expected output instead of its limit, and its tokens instead of whole pages.

        SGLang compares whole pages with the chunk budget. The plan counts tokens: a prompt that fits it would
        be cut at its last full page, and one shorter than a page never start.
        """
        total_tokens -= self._unexpected(req)
        fits, chunk_limit = super()._check_prefill_budget(
            req, extend_input_len=extend_input_len, total_tokens=total_tokens, **kwargs
        )
        if not fits and req.bros.is_rt and self._fits_by_taking(req, total_tokens):
            fits, chunk_limit = True, kwargs["chunk_limit"]
        if chunk_limit is not None and extend_input_len <= chunk_limit:
            chunk_limit = max(chunk_limit, self.ceil_paged_tokens(extend_input_len))
        return fits, chunk_limit

    def _update_prefill_budget(
        self, prefix_len: int, extend_input_len: int, *args: Any, **kwargs: Any
    ) -> None:
        """Charge the tokens that the step computes; SGLang charges whole pages."""
        super()._update_prefill_budget(prefix_len, extend_input_len, *args, **kwargs)
        unfilled = self.ceil_paged_tokens(extend_input_len) - extend_input_len
        self.rem_input_tokens += unfilled
        if self.rem_chunk_tokens is not None:
            self.rem_chunk_tokens += unfilled

    def _commit_prefill_admission(self, req: Any, admission: Any, mamba_gap_reserve: int) -> None:
        """Reserve a candidate's expected output instead of its limit."""
        if admission.max_new_tokens:
            expected = min(admission.max_new_tokens, self.scheduler.room.expected_remaining(req))
            admission = dataclasses.replace(admission, max_new_tokens=expected)
        super()._commit_prefill_admission(req, admission, mamba_gap_reserve)

    @staticmethod
    def _limit(req: Any) -> int:
        """Return the output that SGLang counts for a candidate: its limit, clipped."""
        return int(min(max(req.sampling_params.max_new_tokens - len(req.output_ids), 0), CLIP_MAX_NEW_TOKENS))

    def _unexpected(self, req: Any) -> int:
        return max(0, self._limit(req) - self.scheduler.room.expected_remaining(req))

    def _total_demand(self, req: Any) -> int:
        """Return the tokens that admission counts for a request: new prompt tokens and expected output."""
        new = len(req.full_untruncated_fill_ids) - req.prefix_len
        return int(new + self._limit(req) - self._unexpected(req) + self.per_req_token_overhead)

    def _make_room(self, req: Any) -> bool:
        """Take room for a real-time request: what preempted ones hold first, then from running ones.

        Only what its prompt takes now is made free. Best-effort requests that run give the room for its
        answer when it is made; most of them have ended by then.
        """
        if not self._may_outgrow_best_effort(self._total_demand(req)):
            return False
        held = self.tree_cache.held
        with self._lock_node(req.last_node):  # its own prefix is no room for it
            missing = self._missing_now(req)
            if missing > 0 and held.give_up(missing, keep_rid=req.rid):
                missing = self._missing_now(req)
            if missing > 0 and self.scheduler.preempt_for(self, tokens=missing, slots=0):
                # A victim's KV is held for it; what this request needs of it goes at once.
                held.give_up(self._missing_now(req), keep_rid=req.rid)
                missing = self._missing_now(req)
        return missing <= 0

    def _fits_by_taking(self, req: Any, total_tokens: int) -> bool:
        """Say whether a real-time request has room, its answer's taken from best-effort ones later."""
        return self._missing_now(req) <= 0 and self._may_outgrow_best_effort(total_tokens)

    def _missing_now(self, req: Any) -> int:
        """Return the tokens that a real-time request lacks for this step (0 or less: none)."""
        new = self.ceil_paged_tokens(len(req.full_untruncated_fill_ids) - req.prefix_len)
        if self.rem_chunk_tokens is not None:
            new = min(new, self.ceil_paged_tokens(max(self.rem_chunk_tokens, 0)))
        growth = min(_GROWTH_TOKENS, self.scheduler.room.expected_remaining(req))
        return int(new + growth + self.per_req_token_overhead - self.cur_rem_tokens)

    def _may_outgrow_best_effort(self, total_tokens: int) -> bool:
        """Say whether real-time requests have room to their end once all best-effort KV is theirs."""
        if self._best_effort_tokens is None:
            self._best_effort_tokens = self.scheduler.best_effort_tokens(self.running_batch)
        taken = self._best_effort_tokens + self.tree_cache.held.tokens
        return bool(total_tokens < int(self.rem_total_tokens) + taken - self._promised)

    def give_back(self, req: Any) -> None:
        """Forget the tokens reserved for a running request that was preempted."""
        self.memory_budget.total_offset -= self._get_running_request_total_token_offset(req)
        self._best_effort_tokens = None
