import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.policies.late_launch import LaunchLead, plan_at

seconds = st.floats(0.0, 100.0)


def test_the_lead_covers_the_worst_of_lately():
    lead = LaunchLead()
    lead.prepared(0.008)
    for _ in range(5):
        lead.prepared(0.001)
    assert lead.seconds > 0.008


def test_one_long_pause_is_forgotten():
    lead = LaunchLead()
    lead.prepared(1.0)
    for _ in range(500):
        lead.prepared(0.001)
    assert lead.seconds < 0.003


@pytest.mark.parametrize("nonsense", [-1.0, math.nan, math.inf])
def test_nonsense_is_ignored(nonsense):
    lead = LaunchLead()
    before = lead.seconds
    lead.prepared(nonsense)
    assert lead.seconds == before > 0.0


@given(seconds, seconds, st.floats(-1.0, 10.0), seconds)
def test_the_next_step_is_planned_before_the_running_one_ends(begin_s, predicted_s, band, lead_s):
    at_s = plan_at(begin_s, predicted_s, band, lead_s)
    assert at_s <= begin_s + predicted_s - lead_s + 1e-9
    assert at_s >= begin_s + 0.5 * predicted_s - lead_s - 1e-9


def test_the_less_is_known_the_earlier():
    assert plan_at(0.0, 0.03, 0.1, 0.002) < plan_at(0.0, 0.03, 0.01, 0.002)
