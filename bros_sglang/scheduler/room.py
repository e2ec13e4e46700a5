"""KV room between the classes: what best-effort admission may take, and who gives way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

from bros_sglang.memory.headroom import RtDemand, reserve_tokens
from bros_sglang.memory.victims import Candidate, choose_rt_victims, choose_victims
from bros_sglang.policies.output_length import OutputLength
from bros_sglang.settings import BrosSettings

# A real-time prompt share that hits the cache from which on the whole real-time cache is worth keeping.
_FULL_WORTH_HIT_SHARE = 0.10


class Room:
    """Book-keeping of demand and output lengths, and choices that follow from it. Host numbers only."""

    def __init__(self, settings: BrosSettings) -> None:
        self.settings = settings
        self.demand = RtDemand(least_horizon_s=settings.headroom_horizon_s)
        self.rt_output = OutputLength()
        self.be_output = OutputLength()
        self._rt_prompt_tokens = 0.0  # decaying sums over admitted real-time requests
        self._rt_hit_tokens = 0.0

    # -- what is known of requests

    def arrived(self, req: Any, now_s: float) -> None:
        """Note a real-time arrival."""
        new = max(1, len(req.origin_input_ids) - req.num_matched_prefix_tokens)
        self.demand.arrived(now_s, new + self.expected_remaining(req))

    def admitted(self, req: Any) -> None:
        """Note how much of a real-time prompt was cached when it was admitted."""
        self._rt_prompt_tokens = 0.99 * self._rt_prompt_tokens + len(req.origin_input_ids)
        self._rt_hit_tokens = 0.99 * self._rt_hit_tokens + min(req.prefix_len, len(req.origin_input_ids))

    def finished(self, req: Any, now_s: float) -> None:
        """Note a request that ended: its length, and the room that it gave back."""
        (self.rt_output if req.bros.is_rt else self.be_output).observe(len(req.output_ids))
        self.demand.gave_back(now_s, len(req.origin_input_ids) + len(req.output_ids))

    def expected_remaining(self, req: Any) -> int:
        """Return how many more tokens a request is expected to make."""
        made = len(req.output_ids)
        limit = int(min(req.sampling_params.max_new_tokens, made + CLIP_MAX_NEW_TOKENS))
        if req.sampling_params.ignore_eos:
            return max(limit - made, 0)  # it ends at its limit and nowhere else
        lengths = self.rt_output if req.bros.is_rt else self.be_output
        return lengths.expected_remaining(limit, made)

    # -- admission

    def best_effort_reserve(self, tree: Any, pool_tokens: int, now_s: float) -> int:
        """Return the tokens that best-effort admission leaves alone.

        Room for real-time arrivals (KV that preempted requests hold counts towards it, since real-time
        requests may take it at once), and real-time cache as far as it has proved worth keeping.
        """
        headroom = reserve_tokens(
            self.demand.expected_tokens(now_s),
            pool_tokens=pool_tokens,
            min_share=self.settings.headroom_min_share,
            max_share=self.settings.headroom_max_share,
        )
        return max(0, headroom - int(tree.held.tokens)) + self.rt_cache_kept(tree, pool_tokens)

    def rt_cache_kept(self, tree: Any, pool_tokens: int) -> int:
        """Return how much evictable real-time cache is worth keeping: as far as it has been hit."""
        rt_evictable = max(0, int(tree.evictable_size()) - int(tree.be_evictable_tokens()))
        hit_share = self._rt_hit_tokens / self._rt_prompt_tokens if self._rt_prompt_tokens else 0.0
        worth = min(1.0, hit_share / _FULL_WORTH_HIT_SHARE)
        return int(min(worth * rt_evictable, self.settings.rt_cache_max_share * pool_tokens))

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
                reserved_tokens=0,  # what is needed is needed now
                generated_tokens=len(req.output_ids),
                remaining_tokens=self.expected_remaining(req),
                age_s=now_s - req.bros.arrival_s,
                preemptions=req.bros.preemptions,
            )
            for index, req in enumerate(reqs)
        ]
