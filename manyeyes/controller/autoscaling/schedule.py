"""How many engines the hours ask for. Pure: the time is passed in."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from manyeyes.config.scaling import EVERY_DAY, Keep, Scaling


def kept(scaling: Scaling, at_s: float) -> int:
    """Engines that `keep` asks for at a time, in seconds since 1970; those that take long to start are asked for so much earlier."""
    return max((_asked(scaling, at_s + ahead_s) for ahead_s in (0.0, scaling.ready_s)), default=0)


def _asked(scaling: Scaling, at_s: float) -> int:
    local = datetime.fromtimestamp(at_s, ZoneInfo(scaling.time_zone))
    return max((keep.engines for keep in scaling.keep if _holds(keep, local)), default=0)


def _holds(keep: Keep, local: datetime) -> bool:
    """Clock times are compared, so that a day on which the clocks change has its hours all the same."""
    now, begin, end = local.hour * 60 + local.minute, _minutes(keep.begin), _minutes(keep.end)
    if begin < end:
        return _day(local) in keep.days and begin <= now < end
    # It ends on the next day.
    if now >= begin:
        return _day(local) in keep.days
    return now < end and _day(local - timedelta(days=1)) in keep.days


def _day(local: datetime) -> str:
    return EVERY_DAY[local.weekday()]


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
