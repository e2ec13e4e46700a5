"""KV room between the classes: what best-effort admission may take, and who gives way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

from bros_sglang.memory.future_use import Floats, FutureUse, Row
from bros_sglang.memory.headroom import RtDemand, headroom_bounds
from bros_sglang.memory.victims import Candidate, choose_rt_victims, choose_victims
from bros_sglang.policies.output_length import OutputLength
from bros_sglang.settings import BrosSettings

# A real-time prompt share that hits the cache from which on the whole real-time cache is worth keeping.
_FULL_WORTH_HIT_SHARE = 0.10
_STEP_WEIGHT = 0.02  # of a new step in the mean step time


class Room:
    """Book-keeping of demand and output lengths, and choices that follow from it. Host numbers only."""

    def __init__(self, settings: BrosSettings) -> None:
        self.settings = settings
        self.demand = RtDemand()
        self.rt_output = OutputLength()
        self.be_output = OutputLength()
        self._rt_prompt_tokens = 0.0  # decaying sums over admitted real-time requests
        self._rt_hit_tokens = 0.0
        self._step_s = 0.01  # moving mean

    # -- what is known of requests

    def arrived(self, req: Any, now_s: float) -> None:
        """Note a real-time arrival."""
        new = max(1, len(req.origin_input_ids) - req.num_matched_prefix_tokens)
        self.demand.arrived(now_s, new, self.expected_remaining(req))

    def admitted(self, req: Any) -> None:
        """Note how much of a prompt was cached when it was admitted."""
        if not req.bros.preemptions:
            req.bros.shared_tokens = min(req.prefix_len, len(req.origin_input_ids))
        if not req.bros.is_rt:
            return
        self._rt_prompt_tokens = 0.99 * self._rt_prompt_tokens + len(req.origin_input_ids)
        self._rt_hit_tokens = 0.99 * self._rt_hit_tokens + min(req.prefix_len, len(req.origin_input_ids))

    def finished(self, req: Any) -> None:
        """Note the length of a request that ended."""
        (self.rt_output if req.bros.is_rt else self.be_output).observe(len(req.output_ids))

    def step_took(self, seconds: float) -> None:
        """Note a measured step."""
        self._step_s += _STEP_WEIGHT * (min(seconds, 1.0) - self._step_s)

    def expected_remaining(self, req: Any) -> int:
        """Return how many more tokens a request is expected to make."""
        made = len(req.output_ids)
        limit = int(min(req.sampling_params.max_new_tokens, made + CLIP_MAX_NEW_TOKENS))
        if req.sampling_params.ignore_eos:
            return max(limit - made, 0)  # it ends at its limit and nowhere else
        lengths = self.rt_output if req.bros.is_rt else self.be_output
        return lengths.expected_remaining(limit, made)

    def likely_remaining(self, req: Any) -> int:
        """Return a likely number of further tokens: over many requests, spread as such requests are."""
        made = len(req.output_ids)
        limit = int(min(req.sampling_params.max_new_tokens, made + CLIP_MAX_NEW_TOKENS))
        if req.sampling_params.ignore_eos:
            return max(limit - made, 0)
        lengths = self.rt_output if req.bros.is_rt else self.be_output
        return lengths.likely_remaining(limit, made, req.bros.quantile)

    # -- admission

    def row(self, req: Any, cache_worth: float = 0.0) -> Row:
        """Return what a request holds once its prompt is computed, and how long.

        Its end gives back what nobody shares, and of a real-time request not the part of its cache that is
        kept because it is worth so much.
        """
        held = len(req.origin_input_ids) + len(req.output_ids) - req.bros.shared_tokens
        if req.bros.is_rt:
            held *= 1.0 - cache_worth
        return Row(self.likely_remaining(req), held)

    def real_time_future(self, reqs: Iterable[Any]) -> FutureUse:
        """Return the future of the real-time requests among these, as if they had the pool to themselves."""
        return FutureUse([self.row(req) for req in reqs if req.bros.is_rt])

    def future(self, reqs: Iterable[Any], *, tree: Any, pool_tokens: int, now_s: float) -> FutureUse:
        """Return the future of these requests and of real-time arrivals, for best-effort admission.

        KV that preempted requests hold is room for arrivals: real-time requests may take it at once.
        """
        bounds = headroom_bounds(
            self.settings.headroom_min_share,
            self.settings.headroom_max_share,
            host_keeps_preempted=tree.held.pins.keeps_preempted,
        )
        held = float(tree.held.tokens)

        def arrivals(steps: Floats) -> Floats:
            expected = self.demand.held_after(steps, now_s=now_s, step_s=self._step_s)
            return np.maximum(bounds.clip(expected, pool_tokens) - held, 0.0)

        worth = self._cache_worth()
        return FutureUse([self.row(req, worth) for req in reqs], arrivals)

    def _cache_worth(self) -> float:
        """Return how much of the real-time cache is worth keeping, 0 to 1: as far as it has been hit."""
        hit_share = self._rt_hit_tokens / self._rt_prompt_tokens if self._rt_prompt_tokens else 0.0
        return min(1.0, hit_share / _FULL_WORTH_HIT_SHARE)

    def rt_cache_kept(self, tree: Any, pool_tokens: int) -> int:
        """Return how much evictable real-time cache is worth keeping: as far as it has been hit."""
        rt_evictable = max(0, int(tree.evictable_size()) - int(tree.be_evictable_tokens()))
        return int(min(self._cache_worth() * rt_evictable, self.settings.rt_cache_max_share * pool_tokens))

    # -- preemption

    def victims(
        self,
        reqs: Sequence[Any],
        *,
        tokens: int,
        slots: int,
        now_s: float,
        tree: Any,
    ) -> list[Any]:
        """Choose best-effort requests to preempt for so many tokens and slots; none if all do not suffice."""
        chosen = choose_victims(
            self._candidates(reqs, now_s, tree),
            needed_tokens=tokens,
            needed_slots=slots,
            max_preemptions=self.settings.max_preemptions,
        )
        return [reqs[index] for index in chosen]

    def real_time_victims(self, reqs: Sequence[Any], *, tokens: int, now_s: float, tree: Any) -> list[Any]:
        """Choose real-time requests to preempt for so many tokens, most slack first.

        Where all of them do not suffice, the one with most slack.
        """
        slack_s = [req.bros.next_due_s - now_s for req in reqs]
        candidates = self._candidates(reqs, now_s, tree)
        chosen = choose_rt_victims(candidates, slack_s, needed_tokens=tokens)
        if chosen or not reqs:
            return [reqs[index] for index in chosen]
        return [max(reqs, key=lambda req: req.bros.next_due_s)]

    def _candidates(self, reqs: Sequence[Any], now_s: float, tree: Any) -> list[Candidate]:
        return [
            Candidate(
                index=index,
                private_tokens=req.kv.kv_allocated_len - req.kv.cache_protected_len,
                exclusive_tokens=tree.exclusive_tokens(req),
                generated_tokens=len(req.output_ids),
                remaining_tokens=self.expected_remaining(req),
                age_s=now_s - req.bros.arrival_s,
                preemptions=req.bros.preemptions,
            )
            for index, req in enumerate(reqs)
        ]
