"""Take over settings that `/bros/config` changes. Every rank gets them between the same two passes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from bros_sglang.settings import SettingsError, change_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bros_sglang.scheduler.scheduler import BrosScheduler

logger = logging.getLogger(__name__)


def change(scheduler: BrosScheduler, values: Mapping[str, float | None]) -> bool:
    """Change settings of a running scheduler; tell whether they were taken over.

    Targets hold for requests that arrive from now on.
    """
    try:
        settings = change_settings(scheduler.bros_settings, values)
    except SettingsError as error:
        logger.warning("bros settings not changed: %s", error)
        return False
    scheduler.bros_settings = settings
    scheduler.room.settings = settings
    scheduler.floor.share = settings.be_floor_share
    scheduler.limits = replace(
        scheduler.limits,
        margin_bands=settings.margin_bands,
        fixed_margin_s=settings.fixed_margin_ms / 1e3,
    )
    logger.info("bros settings changed: %s", ", ".join(f"{key} = {value}" for key, value in values.items()))
    return True
