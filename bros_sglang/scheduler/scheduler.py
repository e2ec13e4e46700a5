"""SGLang's Scheduler with a plan for every step: what of each class runs, waits, is parked or gives way.

One pass (`get_next_batch_to_run`): parked rows come back; `_should_defer_prefill` plans the step from
deadlines and predicted times; a best-effort prefill in flight gives way to waiting real-time requests;
`get_new_batch_prefill` shows SGLang's admission loop the front of the queue; rows that the plan leaves out
are parked. Everything else is SGLang's own loop.
"""

from __future__ import annotations

import functools
import json
from collections import deque
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from sglang.srt.managers.io_struct import GetInternalStateReqOutput, SetInternalStateReqOutput
from sglang.srt.managers.scheduler import Scheduler, _make_abort_req
from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker
from sglang.srt.mem_cache.common import match_kv_cache, release_kv_cache
from sglang.srt.runtime_context import get_parallel

from bros_sglang import arrival_times, launch_args, seams
from bros_sglang.policies.aimd import AimdCap
from bros_sglang.policies.decision import Decision, DecisionRing
from bros_sglang.policies.floor import FloorShare
from bros_sglang.policies.late_launch import LaunchLead, plan_at
from bros_sglang.policies.plan import (
    ATTAINABLE_PACES,
    Bound,
    Limits,
    Plan,
    RtPrefill,
    View,
    plan_step,
)
from bros_sglang.policies.slack import latest_catching_up, next_token_due
from bros_sglang.policies.step_time import StepTimeModel
from bros_sglang.scheduler import live_settings
from bros_sglang.scheduler.books import Books
from bros_sglang.scheduler.clock import AgreedClock, ClockTick, read_clock, sleep_until
from bros_sglang.scheduler.metrics import BrosMetrics
from bros_sglang.scheduler.parking import can_park, split_rows
from bros_sglang.scheduler.prefill_adder import BrosPrefillAdder
from bros_sglang.scheduler.room import Room
from bros_sglang.scheduler.schedule_policy import BrosSchedulePolicy
from bros_sglang.scheduler.state import ReqState, build_state
from bros_sglang.scheduler.status import StatusReporter
from bros_sglang.scheduler.steps import StepMeter, shape_of
from bros_sglang.scheduler.waiting_queue import BE_WINDOW, WaitingQueue
from bros_sglang.settings import BrosSettings
from bros_sglang.tracing import tell_scheduler_span

_INFINITY = float("inf")
_RECENT_ARRIVALS = 64
_RT_EXPECTED_S = 60.0  # so long after a real-time arrival another one is reckoned with
_GOLDEN_RATIO = 0.6180339887498949
_NO_PLAN = Plan(0, 0, 0, 0.0, 0.0, 0.0, Bound.NO_RT, ())


class _InvariantChecker(SchedulerInvariantChecker):  # type: ignore[misc] # SGLang is untyped
    """SGLang's memory check, which also counts the KV of parked rows."""

    get_parked_reqs: Any = None

    def _requests_owning_rows(self) -> list[Any]:
        owners: list[Any] = super()._requests_owning_rows()
        known = {id(req) for req in owners}
        return owners + [req for req in self.get_parked_reqs() if id(req) not in known and req.kv.holds_kv]


class _StampedEvent:
    """A device event that reports when the host's first wait for it ended; all else is the event's own."""

    __slots__ = ("_event", "_report")

    def __init__(self, event: Any, report: Any) -> None:
        self._event = event
        self._report = report

    def synchronize(self) -> None:
        """Wait as SGLang would, then report; a second wait (a recorder's, say) is no second end."""
        self._event.synchronize()
        report, self._report = self._report, None
        if report is not None:
            report()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)


class BrosScheduler(Scheduler):  # type: ignore[misc] # SGLang is untyped
    """The scheduler of a server that runs `--policy bros`."""

    # SGLang's attributes that are rebound here.
    chunked_req: Any
    invariant_checker: Any
    schedule_policy: Any

    # -- construction ---------------------------------------------------------------------------------

    def __init__(self, server_args: Any, port_args: Any, *args: Any, **kwargs: Any) -> None:
        self.bros_settings: BrosSettings = launch_args.settings_of(server_args)
        self.clock = AgreedClock()
        self.meter = StepMeter(_step_time_model(self.bros_settings))
        self.launch_lead = LaunchLead()
        self._woke_s: float | None = None  # when this rank began to prepare the next step
        self._slept = False  # before that, in this pass
        self._running_event: Any = None  # of the step launched last
        self._last_rt_s = -_INFINITY  # when the last real-time request was received, on this rank's clock
        self._aimd = AimdCap()
        self._recent_ttft_s: deque[float] = deque(maxlen=_RECENT_ARRIVALS)
        self._arrivals = 0
        self._demand_epoch = -1  # of the cache's eviction clock, when demand was last refreshed
        self.room = Room(self.bros_settings)
        self.plan: Plan = _NO_PLAN
        self.decisions = DecisionRing(self.bros_settings.decision_records)
        self.decision: Decision | None = None  # of the pass under way
        self._decision_log = _open_log(self.bros_settings.decision_log, get_parallel().tp_rank)
        self.parked: Any = None  # a ScheduleBatch of best-effort rows, or None
        self._parking_open = True  # whether this pass may still park rows
        self.owed_room: Any = None  # the best-effort request that the floor share lets in next
        self._runs_real_time_alone = False  # of running requests none is best-effort
        self._given_up: frozenset[int] = frozenset()  # ids of waiting requests that cannot all be on time
        self._gave_way: list[Any] = []  # preempted in this pass, to be queued at its end
        self._awaiting_first_token: list[Any] = []
        self.floor = FloorShare(self.bros_settings.be_floor_share)
        self.books = Books(self.bros_settings.target_share)
        self.status_reporter = StatusReporter(self, self.books, read_clock())
        self.metrics: BrosMetrics | None = None
        super().__init__(server_args, port_args, *args, **kwargs)
        self._receives_late = self.enable_overlap and self.bros_settings.late_launch and _leads_alone()

    def init_chunked_prefill(self) -> None:
        """Take SGLang's chunk size; mix decode rows into prefill steps as the settings say."""
        super().init_chunked_prefill()
        self.is_mixed_chunk = self.chunked_prefill_size is not None and self.bros_settings.mixed_chunk
        self.limits = Limits(
            chunk_tokens=self.chunked_prefill_size or (1 << 30),
            arrival_guard_s=self.bros_settings.ttft_ms * self.bros_settings.arrival_guard / 1e3,
            decode_lead_s=self.bros_settings.ttft_ms * self.bros_settings.decode_lead / 1e3,
            margin_bands=self.bros_settings.margin_bands,
            fixed_margin_s=self.bros_settings.fixed_margin_ms / 1e3,
            sizing=self.bros_settings.batch_sizing,
            row_cap=128 if self.bros_settings.batch_sizing == "aimd" else 1 << 30,
            min_be_chunk_tokens=max(self.bros_settings.min_be_chunk_tokens, self.page_size),
            min_rt_chunk_tokens=max(self.bros_settings.min_rt_chunk_tokens, self.page_size),
        )

    def init_running_status(self) -> None:
        """Build SGLang's running state; the waiting queue is bros's own."""
        super().init_running_status()
        self.waiting_queue: Any = WaitingQueue(
            self.bros_settings.lost_patience, lambda req: self.tree_cache.held.ledger.redo_tokens(req.rid)
        )

    def init_schedule_policy(self) -> None:
        """Build SGLang's policy objects around BrosSchedulePolicy."""
        chosen, self.schedule_policy = self.schedule_policy, "fcfs"
        super().init_schedule_policy()
        self.schedule_policy = chosen
        self.policy = BrosSchedulePolicy(
            chosen, self.tree_cache, self.enable_hierarchical_cache, False, False
        )
        # Lets a pass ask for a seat while all are taken; PrefillAdder.preempt_to_schedule answers.
        self.enable_priority_preemption = True

    def init_invariant_checker(self) -> None:
        """Let SGLang's memory check see parked rows."""
        super().init_invariant_checker()
        checker = self.invariant_checker
        values = {field.name: getattr(checker, field.name) for field in fields(checker)}
        self.invariant_checker = _InvariantChecker(**values)
        self.invariant_checker.get_parked_reqs = lambda: self.parked.reqs if self.parked is not None else []

    def init_metrics_collector(self) -> None:
        """Build SGLang's metrics, and bros's own beside them where the server shows metrics."""
        super().init_metrics_collector()
        context = self.metrics_collector_context
        shown = context.current_scheduler_metrics_enabled and self.bros_settings.metrics
        if shown and context.is_stats_logging_rank:
            self.metrics = BrosMetrics(self.books, self.status_reporter, self.metrics_collector.labels)

    def get_prefill_adder_class(self) -> Any:
        """Hand the adder its scheduler."""
        return functools.partial(BrosPrefillAdder, scheduler=self)

    # -- receiving late -------------------------------------------------------------------------------

    def ingest_requests(self, *args: Any, **kwargs: Any) -> Any:
        """Receive requests as late as the running step allows: the next one is planned with them."""
        self._woke_s, self._slept = None, False
        if self._receives_late:
            if self.last_batch is not None:
                self._hold_back()
            self._woke_s = read_clock()
        return super().ingest_requests(*args, **kwargs)

    def _hold_back(self) -> None:
        """Sleep until it is time to plan the next step; the device is busy meanwhile."""
        running = self.meter.running(self.forward_ct)
        if running is None or read_clock() - self._last_rt_s > _RT_EXPECTED_S:
            return
        at_s = plan_at(*running, self.meter.model.band(decode_only=False), self.launch_lead.seconds)
        if at_s > read_clock():
            self._slept = True
            sleep_until(at_s, self._device_is_idle)

    def _device_is_idle(self) -> bool:
        """Tell whether the step launched last has ended; nothing waits for it."""
        return self._running_event is not None and bool(self._running_event.query())

    # -- the agreed clock -----------------------------------------------------------------------------

    def _poll_timeout_aborts(self) -> list[Any]:
        messages: list[Any] = super()._poll_timeout_aborts()
        if not self._is_idle():
            messages.append(ClockTick(read_clock(), self.meter.drain()))
        return messages

    def _is_idle(self) -> bool:
        """Say whether there is nothing to decide: then no tick is sent, and the pass counts as idle."""
        return (
            self.last_batch is None
            and self.chunked_req is None
            and self.parked is None
            and len(self.waiting_queue) == 0
            and self.running_batch.is_empty()
        )

    def process_input_requests(self, recv_reqs: list[Any]) -> None:
        """Take the clock out of what was broadcast, then let SGLang handle the rest."""
        ticks = [item for item in recv_reqs if type(item) is ClockTick]
        if not ticks:
            super().process_input_requests(recv_reqs)
            return
        for tick in ticks:
            self.clock.advance(tick.now_s)
            self._learn(tick.steps)
        self._stamp_first_tokens()
        super().process_input_requests([item for item in recv_reqs if type(item) is not ClockTick])

    def _stamp_first_tokens(self) -> None:
        """Give first tokens that came out in the last pass their agreed time."""
        for req in self._awaiting_first_token:
            if req.bros.first_token_s is None:
                req.bros.first_token_s = self.clock.now_s
        self._awaiting_first_token.clear()

    # -- arrival --------------------------------------------------------------------------------------

    def _create_generation_req(self, recv_req: Any, *args: Any, **kwargs: Any) -> Any:
        req = super()._create_generation_req(recv_req, *args, **kwargs)
        dispatched_s = arrival_times.of(recv_req).dispatched_s
        if self._is_idle():
            # No tick is sent while idle; the request brings a time that all ranks see alike.
            self.clock.advance(dispatched_s)
        req.bros = build_state(recv_req, self.bros_settings, self.clock.now_s)
        # Multiples of the golden ratio: any run of them is spread evenly over 0 to 1.
        self._arrivals += 1
        req.bros.quantile = self._arrivals * _GOLDEN_RATIO % 1.0
        if req.bros.is_rt:
            self._last_rt_s = read_clock()
            self._note_target(req.bros.slo.ttft_s)
        self.books.arrived(req, read_clock())
        tell_scheduler_span(req, self.bros_settings.target_share)
        return req

    def _note_target(self, ttft_s: float) -> None:
        """Scale the time kept free for arrivals by the tightest TTFT target of the last ones."""
        self._recent_ttft_s.append(ttft_s)
        tightest_s = min(self._recent_ttft_s)
        self.limits = replace(
            self.limits,
            arrival_guard_s=tightest_s * self.bros_settings.arrival_guard,
            decode_lead_s=tightest_s * self.bros_settings.decode_lead,
        )

    # -- a pass ---------------------------------------------------------------------------------------

    def get_next_batch_to_run(self, running_batch: Any, last_batch: Any) -> Any:
        """Run one pass of SGLang's loop with parked rows back in place."""
        self._parking_open = True
        if self.parked is not None:
            parked, self.parked = self.parked, None
            parked.filter_batch()
            if running_batch.is_empty():
                running_batch = parked
            elif not parked.is_empty():
                running_batch.merge_batch(parked)
        plan = super().get_next_batch_to_run(running_batch, last_batch)
        for req in self._gave_way:
            self._add_request_to_queue(req)
        self._gave_way.clear()
        if self.decision is not None and plan.batch_to_run is not None:
            self._note_outcome(self.decision, plan.batch_to_run)
        if self.metrics is not None:
            self.metrics.flush_if_due(read_clock(), idle=plan.batch_to_run is None)
        return plan

    def _should_defer_prefill(self, running_batch: Any) -> bool:
        """Plan the step (SGLang asks here whether to decode first)."""
        if len(self.waiting_queue) == 0 and self.chunked_req is None and running_batch.is_empty():
            self.plan = _NO_PLAN
            return False
        if self.chunked_req is not None and not self.chunked_req.bros.is_rt and len(self.waiting_queue.rt):
            self._give_up_chunk()
        view = self._view(running_batch)
        self.plan = plan_step(view, self.meter.model, self.limits)
        if self.limits.sizing == "aimd":
            cap = self._aimd.update(binds=self.plan.predicted_s > self.plan.time_limit_s)
            self.limits = replace(self.limits, row_cap=cap)
        self._note_given_up()
        self._note_plan(view, self.plan)
        self.policy.chunk_limit = None
        if self.chunked_req is not None:
            share = (
                self.plan.rt_prefill_tokens if self.chunked_req.bros.is_rt else self.plan.be_prefill_tokens
            )
            left = len(self.chunked_req.full_untruncated_fill_ids) - self.chunked_req.prefix_len
            # A chunk ends with a page, but for the last one.
            self.policy.chunk_limit = share if share >= left else share // self.page_size * self.page_size
            if self.policy.chunk_limit == 0:
                if not running_batch.is_empty():
                    return True
                self._force_chunk()
            self._make_room_for_chunk(min(self.policy.chunk_limit, left), running_batch)
        return not self.plan.has_prefill and not running_batch.is_empty()

    def _note_given_up(self) -> None:
        """Remember whom the plan gives up, so that they stand behind those that can be on time."""
        if not self.plan.lost:
            self._given_up = frozenset()
            return
        window = self.waiting_queue.window(self.clock.now_s, with_be=False)
        if self.chunked_req is not None and self.chunked_req.bros.is_rt:
            window.insert(0, self.chunked_req)
        self._given_up = frozenset(id(window[position]) for position in self.plan.lost)

    def _force_chunk(self) -> None:
        """Let a chunk in flight move where nothing else could run."""
        self.policy.chunk_limit = self.chunked_prefill_size

    def _make_room_for_chunk(self, tokens: int, running_batch: Any) -> None:
        """See to it that the next chunk of a prefill in flight can be allocated, or let it give way.

        A prompt takes its room chunk by chunk, so that best-effort requests may end in the meantime. For a
        real-time chunk they are preempted where that is not enough.
        """
        req, tree = self.chunked_req, self.tree_cache
        missing = self._chunk_lacks(tokens, running_batch)
        if missing > 0 and req.bros.is_rt:
            tree.held.give_up(missing, keep_rid=req.rid)
            missing = self._chunk_lacks(tokens, running_batch)
            if missing > 0:
                victims = self.room.victims(
                    self._preemptible(running_batch),
                    tokens=missing,
                    slots=0,
                    now_s=self.clock.now_s,
                    tree=tree,
                )
                for victim in victims:
                    self._release(victim)
                self._gave_way += victims
                self._drop_rows(victims, running_batch)
                tree.held.give_up(self._chunk_lacks(tokens, running_batch), keep_rid=req.rid)
                missing = self._chunk_lacks(tokens, running_batch)
        if missing <= 0:
            return
        self.policy.chunk_limit = (tokens - missing) // self.page_size * self.page_size
        if self.policy.chunk_limit <= 0:
            self.policy.chunk_limit = None
            self._give_up_chunk()

    def _chunk_lacks(self, tokens: int, running_batch: Any) -> int:
        """Return what a chunk lacks beside the decode rows that may ride along (0 or less: nothing)."""
        pages = -(-tokens // self.page_size) + 1
        rows = 0 if running_batch.is_empty() else running_batch.new_tokens_required_next_decode()
        room = self.token_to_kv_pool_allocator.available_size() + self.tree_cache.evictable_size()
        return int(pages * self.page_size + rows - room)

    def _view(self, running_batch: Any) -> View:
        """Collect the numbers that the step is planned on."""
        now_s = self.clock.now_s
        start_s = now_s
        if self.enable_overlap and self.last_batch is not None:
            start_s += self.meter.in_flight_s(self.forward_ct, now_s)
        base = self.bros_settings.deadline_base
        rt_rows = rt_context = be_rows = be_context = be_protected = 0
        rt_next_due_s = rt_tightest_tpot_s = rt_latest_s = _INFINITY
        rt_prefill_waits = len(self.waiting_queue.rt) > 0 or (
            self.chunked_req is not None and self.chunked_req.bros.is_rt
        )
        for req in running_batch.reqs:
            kv_tokens = req.kv.kv_committed_len
            state: ReqState = req.bros
            if not state.is_rt:
                be_rows += 1
                be_context += kv_tokens
                be_protected += req.kv.cache_protected_len
                continue
            rt_rows += 1
            rt_context += kv_tokens
            due_s = next_token_due(
                arrival_s=state.arrival_s,
                first_token_s=start_s if state.first_token_s is None else state.first_token_s,
                # The tokens that came out or are in flight; the step makes the one after them.
                tokens_out=kv_tokens - len(req.origin_input_ids) + 1,
                slo=state.slo,
                base=base,
            )
            state.next_due_s = due_s
            tpot_s = state.slo.tpot_s
            if tpot_s < self.plan.rt_pace_s:
                # Not even real-time work alone could keep this pace: it gets one that can be kept.
                tpot_s = ATTAINABLE_PACES * self.plan.rt_pace_s
                due_s = start_s + tpot_s
            rt_next_due_s = min(rt_next_due_s, due_s)
            rt_tightest_tpot_s = min(rt_tightest_tpot_s, tpot_s)
            if rt_prefill_waits:
                rt_latest_s = min(
                    rt_latest_s, latest_catching_up(due_s, tpot_s, self.room.expected_remaining(req))
                )

        chunked = self.chunked_req
        self._runs_real_time_alone = rt_rows > 0 and not be_rows and (chunked is None or chunked.bros.is_rt)
        if chunked is not None and not chunked.bros.is_rt:
            be_protected += chunked.kv.cache_protected_len
        self._inform_tree(be_protected)

        prefills: list[RtPrefill] = []
        be_tokens = be_prefix = 0
        if chunked is not None:
            left = len(chunked.full_untruncated_fill_ids) - chunked.prefix_len
            if chunked.bros.is_rt:
                prefills.append(RtPrefill(chunked.bros.due_s, left, chunked.prefix_len))
            else:
                be_tokens, be_prefix = left, chunked.prefix_len
        for req in self.waiting_queue.window(now_s, with_be=False):
            cached = req.num_matched_prefix_tokens
            new = max(1, len(req.origin_input_ids) + len(req.output_ids) - cached)
            prefills.append(RtPrefill(req.bros.due_s, new, cached))
        if len(self.waiting_queue.be):
            be_tokens += self.limits.chunk_tokens  # more than a step takes; admission counts exactly
        return View(
            start_s=start_s,
            rt_prefills=prefills,
            rt_rows=rt_rows,
            rt_context=rt_context,
            rt_next_due_s=rt_next_due_s,
            rt_tightest_tpot_s=rt_tightest_tpot_s,
            rt_latest_s=rt_latest_s,
            be_rows=be_rows,
            be_context=be_context,
            be_prefill_tokens=be_tokens,
            be_prefix_tokens=be_prefix,
            be_owed_s=self.floor.owed_s,
        )

    def _inform_tree(self, be_protected_tokens: int) -> None:
        """Tell the prefix cache what it decides by: locked best-effort tokens, and demand."""
        tree = self.tree_cache
        tree.be_protected_tokens = be_protected_tokens
        tree.rt_cache_kept_tokens = self.room.rt_cache_kept(tree, self.max_total_num_tokens)
        if tree.eviction_clock.epoch != self._demand_epoch:
            # Worth ages with evictions, so between two of the clock's ticks there is nothing to refresh.
            self._demand_epoch = tree.eviction_clock.epoch
            tree.refresh_demand(self.waiting_queue.be.head(BE_WINDOW, self.clock.now_s))

    def get_new_batch_prefill(self, running_batch: Any) -> Any:
        """Let SGLang's admission loop see the front of the queue, in order."""
        queue: WaitingQueue = self.waiting_queue
        with_be = self.plan.be_prefill_tokens > 0
        window = queue.window(self.clock.now_s, with_be=with_be, given_up=self._given_up)
        self.owed_room = self._find_owed_room()
        if self.owed_room is not None:
            window = [self.owed_room, *(req for req in window if req is not self.owed_room)]
        if self.is_mixed_chunk and self.plan.has_prefill:
            self._park_rows(running_batch, all_of_them=True)
        shown = {id(req) for req in window}
        self.waiting_queue = list(window)
        try:
            result = super().get_new_batch_prefill(running_batch)
        finally:
            left, self.waiting_queue = self.waiting_queue, queue
        still_waiting = {id(req) for req in left}
        for req in window:
            if id(req) not in still_waiting:
                queue.take(req)
                self.room.admitted(req)
        for req in left:
            if id(req) not in shown:  # preempted in this pass, or its grammar became ready
                queue.append(req)
        if result.batch_to_run is None and self.parked is not None:
            # Nothing could be admitted after all: the parked rows run instead.
            rows, parked, self.parked = result.running_batch, self.parked, None
            self._parking_open = False
            if rows.is_empty():
                rows = parked
            else:
                rows.merge_batch(parked)
            result = type(result)(batch_to_run=None, running_batch=rows)
        return result

    def update_running_batch(self, batch: Any) -> Any:
        """Make room for a decode step: park what the plan leaves out, preempt where tokens lack."""
        self._park_rows(batch)
        if not batch.check_decode_mem():
            self._preempt_for_decode(batch)
        return super().update_running_batch(batch)

    # -- giving way -----------------------------------------------------------------------------------

    def _park_rows(self, batch: Any, *, all_of_them: bool = False) -> None:
        """Take best-effort rows that the plan leaves out of the batch, those parked least often first.

        Only a step with prefill in it may do without any decode row (`all_of_them`).
        """
        if not self.bros_settings.park_decodes or self.parked is not None or not self._parking_open:
            return
        be = [i for i, req in enumerate(batch.reqs) if not req.bros.is_rt]
        excess = len(be) - self.plan.be_rows
        if excess <= 0:
            return
        be.sort(key=lambda i: batch.reqs[i].bros.parked_passes)
        out = sorted(i for i in be[: max(excess, 0)] if can_park(batch.reqs[i]))
        if not all_of_them and len(out) == len(batch.reqs):
            out = out[1:]
        if not out:
            return
        for i in out:
            batch.reqs[i].bros.parked_passes += 1
        self.books.passes.parked_passes += len(out)
        self.parked = split_rows(batch, out)

    def _give_up_chunk(self) -> None:
        """Free the chunk slot of a best-effort prefill; what it computed is in the tree already."""
        req, self.chunked_req = self.chunked_req, None
        self._release(req, mid_prefill=True)
        self._gave_way.append(req)

    def _release(self, req: Any, *, mid_prefill: bool = False) -> None:
        """Put a request's KV into the tree and take its seat; a result in flight for it will be dropped."""
        self.books.preempted(req, mid_prefill=mid_prefill)
        if self.bros_settings.keep_preempted:
            self.tree_cache.release_preempted(req)
        else:
            release_kv_cache(req, self.tree_cache, checkpoint=False)
        req.reset_for_retract()
        req.bros.preemptions += 1
        if self.decision is not None:
            self.decision.preempted.append(req.rid)

    def free_request_slots(self, admitted: list[Any], running_batch: Any) -> int:
        """Return how many request slots a pass may still fill."""
        held = sum(req.kv.holds_kv for req in admitted)
        slots: int = self.get_num_allocatable_reqs(
            len(running_batch.reqs), running_batch=running_batch, num_held_rows=held
        )
        return slots - len(admitted)

    def rt_left_waiting(self, admitted: list[Any]) -> bool:
        """Say whether the pass has real-time requests that are not admitted."""
        taken = {id(req) for req in admitted}
        return any(req.bros.is_rt and id(req) not in taken for req in self.waiting_queue)

    def _find_owed_room(self) -> Any:
        """Return the best-effort request that the floor share lets in next, before real-time ones; or None.

        One at a time: only where none holds room, since real-time requests fill the pool.
        """
        if not self.floor.is_due or self.parked is not None or not self._runs_real_time_alone:
            return None
        return next(iter(self.waiting_queue.be.head(1, self.clock.now_s)), None)

    def can_wait_for_room(self, req: Any) -> bool:
        """Say whether a real-time request may leave best-effort ones their room a little longer.

        With every decode step some of them end and give theirs back, while what is taken from one in the
        middle has to be computed again.
        """
        keep_s = req.bros.slo.ttft_s * (1.0 - self.bros_settings.room_patience)
        return not req.output_ids and self.plan.first_token_slack_s > keep_s

    def _preemptible(self, batch: Any, *, rt: bool = False) -> list[Any]:
        """Return the best-effort (or real-time) requests of a batch that may be preempted.

        Not those that end with the next step: by their length, or because they were aborted. Queued again, an
        aborted request would hold its KV until it ran once more.
        """
        ending = {id(req) for req in self._reqs_finishing_inflight(batch)}
        return [
            req
            for req in batch.reqs
            if req.bros.is_rt is rt
            and not req.finished()
            and req.to_finish is None
            and req.beam_group is None
            and id(req) not in ending
        ]

    def preempt_for(self, adder: BrosPrefillAdder, *, tokens: int, slots: int) -> int:
        """Preempt best-effort requests until a real-time one has room; return how many.

        `tokens` is what its prompt lacks, `slots` how many request slots. Nobody is preempted if all of them
        together would not make the room.
        """
        batches = [adder.running_batch] if self.parked is None else [adder.running_batch, self.parked]
        reqs = [req for batch in batches for req in self._preemptible(batch) if not req.bros.on_floor]
        chosen = self.room.victims(
            reqs, tokens=tokens, slots=slots, now_s=self.clock.now_s, tree=self.tree_cache
        )
        for req in chosen:
            self._release(req)
            adder.preempt_list.append(req)
        self._drop_rows(chosen, *batches)
        return len(chosen)

    def _drop_rows(self, gone: list[Any], *batches: Any) -> None:
        """Take preempted requests out of the batches that hold them."""
        ids = {id(req) for req in gone}
        for batch in batches:
            keep = [i for i, req in enumerate(batch.reqs) if id(req) not in ids]
            if len(keep) < len(batch.reqs):
                batch.filter_batch(keep_indices=keep)
                batch.batch_is_full = False
        if self.parked is not None and self.parked.is_empty():
            self.parked = None

    def _preempt_for_decode(self, batch: Any) -> None:
        """Preempt until the others' next tokens fit: best-effort rows, then real-time ones with most slack.

        The last row stays: SGLang ends it if the pool is too small for it alone.
        """
        batches = [batch] if self.parked is None else [self.parked, batch]
        while not batch.check_decode_mem():
            chosen = self._best_effort_victims(batch, batches) or self._real_time_victims(batch)
            if not chosen:
                return
            for req in chosen:
                self._release(req)
                if req.bros.is_rt:
                    req.bros.due_s = min(req.bros.next_due_s, self.clock.now_s + req.bros.slo.ttft_s)
            self._gave_way += chosen
            self._drop_rows(chosen, *batches)
            if batch.is_empty():
                return

    def _best_effort_victims(self, batch: Any, batches: list[Any]) -> list[Any]:
        reqs = [req for rows in batches for req in self._preemptible(rows)]
        if len(batch.reqs) == 1 and batch.reqs[0] in reqs:
            reqs.remove(batch.reqs[0])  # somebody has to run
        needed = batch.new_tokens_required_next_decode() - self.token_to_kv_pool_allocator.available_size()
        chosen = self.room.victims(
            reqs, tokens=max(needed, 1), slots=0, now_s=self.clock.now_s, tree=self.tree_cache
        )
        return chosen or reqs[:1]

    def _real_time_victims(self, batch: Any) -> list[Any]:
        reqs = self._preemptible(batch, rt=True)
        if reqs and len(reqs) == len(batch.reqs):
            reqs.remove(min(reqs, key=lambda req: req.bros.next_due_s))  # somebody has to run
        needed = batch.new_tokens_required_next_decode() - self.token_to_kv_pool_allocator.available_size()
        return self.room.real_time_victims(
            reqs, tokens=max(needed, 1), now_s=self.clock.now_s, tree=self.tree_cache
        )

    # -- measuring ------------------------------------------------------------------------------------

    def run_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Note what the step computes, then launch it."""
        step = self.forward_ct + 1
        if self._slept:
            self.books.passes.late_launches += 1
            self.books.passes.late_launches_missed += self._device_is_idle()
        self.meter.launched(step, shape_of(batch), read_clock(), self.clock.now_s)
        result = super().run_batch(batch, *args, **kwargs)
        if self._woke_s is not None:
            self.launch_lead.prepared(read_clock() - self._woke_s)
        event = getattr(result, "copy_done", None)
        self._running_event = event
        if isinstance(event, torch.cpu.Event) or (event is None and self.device == "cpu"):
            self.meter.ended(step, read_clock())  # a CPU has computed when it returns
        elif event is not None:
            result.copy_done = _StampedEvent(event, lambda: self.meter.ended(step, read_clock()))
        return result

    def process_batch_result(self, batch: Any, result: Any) -> None:
        """Measure the step, and note whose first token it made."""
        super().process_batch_result(batch, result)
        if getattr(result, "copy_done", None) is None and self.device != "cpu":
            self.meter.ended(batch.forward_iter, read_clock())  # the host waited for the tokens
        self.books.after_step(batch.reqs, read_clock())
        for req in batch.reqs:
            state: ReqState = req.bros
            if req.finished() and not state.finished:
                state.finished = True
                self.room.finished(req)
            if state.warmed or not (req.output_ids or req.finished()):
                continue
            state.warmed = True
            self._awaiting_first_token.append(req)
            if not state.is_rt:
                self.waiting_queue.be.prefilled(req, state.group)

    def _learn(self, measured: tuple[tuple[int, float], ...]) -> None:
        """Teach the model with rank 0's measurements, and complete the records of those steps."""
        self.meter.learn(measured, self.clock.now_s)
        for step, seconds in measured:
            if not 0.0 <= seconds < _INFINITY:
                continue  # a clock that jumped
            self.room.step_took(seconds)
            record = self.decisions.ended(step, seconds)
            if record is not None:
                self.floor.step(
                    seconds=seconds,
                    best_effort_share=record.best_effort_share,
                    best_effort_waits=record.be_waiting > 0 or record.parked > 0,
                )
            self.books.step_measured(record, seconds, self.clock.now_s)
            if record is not None and self._decision_log is not None:
                self._decision_log.write(json.dumps(record.to_json()) + "\n")

    def _note_plan(self, view: View, plan: Plan) -> None:
        self.decision = Decision(
            step=self.forward_ct + 1,
            now_s=self.clock.now_s,
            start_s=view.start_s,
            rt_waiting=len(self.waiting_queue.rt),
            be_waiting=len(self.waiting_queue.be),
            rt_rows=view.rt_rows,
            be_rows=view.be_rows,
            lendable_s=plan.lendable_s if plan.lendable_s < _INFINITY else None,
            limit_s=plan.time_limit_s,
            bound=plan.bound.value,
            lost=len(plan.lost),
            rt_tokens=plan.rt_prefill_tokens,
            be_tokens=plan.be_prefill_tokens,
        )
        self.decisions.add(self.decision)

    def _note_outcome(self, decision: Decision, batch: Any) -> None:
        shape = shape_of(batch)
        decision.predicted_s = self.meter.model.predict(shape)
        decision.parked = len(self.parked.reqs) if self.parked is not None else 0
        cost = self.meter.model.coefficients(decode_only=shape.is_decode_only)
        if shape.is_decode_only:
            decision.mode = "decode"
            self.books.launched(decision, batch, shape, cost)
            return
        decision.mode = "mixed" if shape.decode_rows else "prefill"
        for req, new in zip(
            batch.reqs[: len(batch.reqs) - shape.decode_rows], batch.extend_lens, strict=False
        ):
            if req.bros.is_rt:
                decision.rt_admitted.append(req.rid)
                decision.rt_prefilled += new
            else:
                decision.be_admitted += 1
                decision.be_prefilled += new
        self.books.launched(decision, batch, shape, cost)

    # -- SGLang's other questions ---------------------------------------------------------------------

    def get_internal_state(self, recv_req: Any) -> Any:
        """Answer `GET /bros/status` and the door's questions on the way of SGLang's own state request."""
        state = self.status_reporter.answer(recv_req.rid, read_clock())
        if state is None:
            return super().get_internal_state(recv_req)
        return GetInternalStateReqOutput(internal_state=state)

    def _collect_inflight_batches(self) -> list[Any]:
        return [*super()._collect_inflight_batches(), self.parked]

    def is_fully_idle(self, *args: Any, **kwargs: Any) -> bool:
        """Count parked rows as work."""
        return self.parked is None and super().is_fully_idle(*args, **kwargs)

    def set_internal_state(self, recv_req: Any) -> Any:
        """Take over what `/bros/config` changes, on the way of SGLang's own knobs."""
        if recv_req.rid != seams.CONFIG_RID:
            return super().set_internal_state(recv_req)
        return SetInternalStateReqOutput(updated=live_settings.change(self, recv_req.server_args))

    def _release_aborted_request(self, req: Any) -> None:
        self.books.aborted_waiting(req, read_clock())
        super()._release_aborted_request(req)

    def _add_request_to_queue(self, req: Any, is_retracted: bool = False) -> None:  # noqa: FBT001, FBT002
        if req.retraction_count and req.to_finish is not None:
            # Aborted, and lost its seat before the step that would have ended it.
            self._release_aborted_request(req)
            reason = req.to_finish.to_json()
            self.send_abort_output(_make_abort_req(req, finished_reason=reason), req)
            return
        if not hasattr(req, "bros"):  # a request that SGLang made for itself
            req.bros = ReqState.internal(self.bros_settings, self.clock.now_s, req.rid)
        elif req.bros.is_rt and req.num_matched_prefix_tokens == 0:
            # What is cached already need not be computed: the slack is larger by that.
            match_kv_cache(req, self.tree_cache)
            if not req.output_ids:
                self.room.arrived(req, self.clock.now_s)
        self.books.passes.retracted += is_retracted
        super()._add_request_to_queue(req, is_retracted)


def _leads_alone() -> bool:
    """Tell whether all other ranks follow this one's clock; where ranks batch on their own, none leads."""
    parallel = get_parallel()
    first = parallel.attn_tp_rank == 0 and parallel.attn_cp_rank == 0
    return bool(first and parallel.pp_size == 1 and parallel.attn_dp_size == 1)


def _open_log(path: Path | None, rank: int) -> Any:
    """Open the decision log for appending, line by line; None where none is asked for.

    Tensor-parallel ranks after the first write files of their own (`FILE.rank1`), which must be equal.
    """
    if path is None:
        return None
    if rank:
        path = path.with_name(f"{path.name}.rank{rank}")
    try:
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise SystemExit(f"error: decision_log {path}: cannot be written: {error}") from error


def _step_time_model(settings: BrosSettings) -> StepTimeModel:
    """Return the model that a profile file describes, or one that starts from a cautious guess."""
    path = settings.step_time_file
    if path is None:
        return StepTimeModel()
    try:
        return StepTimeModel.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"error: step_time_file {path}: not a step-time profile ({error!r})") from error
