"""Prints schedules.jsonl: when schedules are in effect around changes of the clock, found by looking at a clock every minute.

It shares nothing with Drover: Python's zoneinfo has the time zones, and a schedule is in effect while the latest time that
the clock has shown so far lies in it. Written with Python 3.11 and version 2025b of the IANA database. All dates are in the past,
so no later version changes them.
"""

import json
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MINUTE = timedelta(minutes=1)

# Time zone, and a day near which its clocks change.
CHANGES = [
    ("Europe/Berlin", "2024-03-31"),  # 02:00 -> 03:00
    ("Europe/Berlin", "2024-10-27"),  # 03:00 -> 02:00
    ("America/New_York", "2024-03-10"),  # 02:00 -> 03:00
    ("America/New_York", "2024-11-03"),  # 02:00 -> 01:00
    ("America/Havana", "2024-11-03"),  # 01:00 -> 00:00
    ("Australia/Lord_Howe", "2024-04-07"),  # half an hour back
    ("Australia/Lord_Howe", "2024-10-06"),  # half an hour ahead
    ("Africa/Cairo", "2024-04-26"),  # 00:00 -> 01:00, a Friday
    ("Africa/Cairo", "2024-11-01"),  # 00:00 -> 23:00 of the day before
    ("Asia/Beirut", "2024-03-31"),  # 00:00 -> 01:00
    ("Asia/Beirut", "2024-10-27"),  # 00:00 -> 23:00 of the day before
    ("Europe/Dublin", "2024-10-27"),  # summer time is the standard time
    ("Africa/Casablanca", "2024-03-10"),  # Ramadan begins
    ("Pacific/Apia", "2011-12-30"),  # the day does not exist
    ("America/Scoresbysund", "2024-03-31"),  # its offset and its summer time change
    ("Asia/Kathmandu", "2024-06-01"),  # no change, +05:45
    ("UTC", "2024-06-01"),
]

ALL = DAYS
SCHEDULES = [
    (ALL, "08:00", "18:00"),
    (ALL, "22:00", "06:00"),
    (ALL, "00:00", "24:00"),
    (ALL, "01:30", "02:30"),
    (ALL, "02:30", "05:00"),
    (ALL, "02:15", "02:45"),
    (ALL, "23:30", "00:30"),
    (ALL, "00:30", "00:10"),
    (["sat"], "20:00", "03:00"),
    (["sun"], "02:00", "03:00"),
    (["sun"], "00:00", "24:00"),
    (["mon", "thu", "fri"], "23:15", "23:45"),
]


def minutes(text):
    return int(text[:2]) * 60 + int(text[3:])


def holds(clock, days, begins, ends):
    """Whether a clock that shows this time is in the schedule."""
    minute = clock.hour * 60 + clock.minute
    today, before = DAYS[clock.weekday()] in days, DAYS[clock.weekday() - 1] in days
    if begins < ends:
        return today and begins <= minute < ends
    return (today and minute >= begins) or (before and minute < ends)


def look(zone, day, days, begins, ends):
    """Whether the schedule is in effect a day before the day, and when that changes until two days after it."""
    first = datetime.fromisoformat(day).replace(tzinfo=timezone.utc) - timedelta(days=3)
    now, latest, states = first, None, []
    while now < first + timedelta(days=6):
        shown = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        latest = shown if latest is None else max(latest, shown)
        states.append((now, holds(latest, days, begins, ends)))
        now += MINUTE
    # The first day only shows what the clock had shown before.
    states = states[24 * 60 :]
    changes = [now for (_, before), (now, after) in zip(states, states[1:]) if before != after]
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    return {
        "since": states[0][0].strftime(stamp),
        "until": states[-1][0].strftime(stamp),
        "at_first": states[0][1],
        "changes": [change.strftime(stamp) for change in changes],
    }


for zone, day in CHANGES:
    for days, start, end in SCHEDULES:
        schedule = {"days": days, "from": start, "to": end, "time_zone": zone, "warm": 5}
        print(json.dumps({"schedule": schedule, **look(zone, day, days, minutes(start), minutes(end))}))
