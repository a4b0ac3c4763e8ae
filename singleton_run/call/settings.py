"""The settings of a call, checked as a whole before anything is contacted."""

from __future__ import annotations

from singleton_run import durations, lease_times
from singleton_run.api.lock_address import nested, parts, redact, waits_for_itself
from singleton_run.call.fast_parser import lacking
from singleton_run.call.options import OPTIONS
from singleton_run.errors import HELD, UNUSABLE, USAGE, Failure
from singleton_run.names import check_name, default_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping
    from typing import NoReturn

    from singleton_run.call.fast_parser import Values
else:
    import _signal

KILL_AFTER = 10.0
LEAST_INTERVAL = 1.0
LONGEST_KEY = 256
# MOST_BACKOFF to the power of MOST_RETRIES has to fit into a float.
MOST_RETRIES = 100
MOST_BACKOFF = 100.0
_LONGEST_SOCKET = 107  # bytes in the path of a socket (unix(7))

_SLOTS = ("every", "cron")
_REPORTS = ("metrics_addr", "metrics_file", "on", "notify", "ping")

_BY_NAME = {option.name: option for option in OPTIONS}
_OF_CRONJOBS = {"forbid": "skip", "replace": "replace"}
_BLANKS = {"\n": "a newline", "\r": "a carriage return", "\t": "a tab"}
_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")


class Settings:
    """The settings of a valid call. They are frozen: an assignment raises AttributeError.

    Times are in seconds. `lock_address` is the backend's name or URL as it was given; `scheme` is the part
    that names the backend. `label_pod` is the label for our pod, KEY=VALUE, empty for none. `named` says that
    the lock's name was given, and not made from the command. `wait` None means for ever. `timeout` and
    `kill_after` are None if they were not given; KILL_AFTER is the default where a time is needed. `rewrite`
    maps a signal to the one that is sent instead, 0 for none. `verbosity` is -1 for quiet, else the number of
    -v.

    `scheduled` says that there are slots: by `every`, an interval, or by `cron`, an expression in its one
    spelling (`cron_expression`), in the time zone `zone`. `loop` says that we go on after a slot.
    `start_deadline` None means until the next slot is due. `overlap` is the word of --overlap: queue,
    skip or replace. `once` is the key of --once. The n-th retry, counted from 0, comes `retry_delay *
    retry_backoff ** n` after the failure. `lock_at_least_for` is how long the lock is kept at least, from
    the command's start.

    `metrics_addr` and `metrics_file` are None if they were not given. `reports` says that there is anything
    for the reporter to do (see `reporter`). `on` has the hooks, each as event and command, and `on_timeout`
    how long one may run. `notify` and `ping` are URLs, None if they were not given.
    """

    __slots__ = (
        "command",
        "conflict_status",
        "cron",
        "every",
        "jitter",
        "kill_after",
        "label_pod",
        "leftovers",
        "lock_address",
        "lock_at_least_for",
        "log_format",
        "loop",
        "metrics_addr",
        "metrics_file",
        "name",
        "named",
        "notify",
        "notify_secret",
        "on",
        "on_timeout",
        "once",
        "overlap",
        "ping",
        "ping_log",
        "ping_style",
        "ready_when",
        "reports",
        "retries",
        "retry_backoff",
        "retry_delay",
        "retry_interrupted",
        "rewrite",
        "scheduled",
        "scheme",
        "signal_command_only",
        "start_deadline",
        "stop_signal",
        "timeout",
        "ttl",
        "verbosity",
        "wait",
        "zone",
    )

    lock_address: str
    scheme: str
    name: str
    named: bool
    ttl: float
    label_pod: str
    wait: float | None
    conflict_status: int
    timeout: float | None
    kill_after: float | None
    stop_signal: int
    rewrite: Mapping[int, int]
    signal_command_only: bool
    leftovers: str
    scheduled: bool
    every: float | None
    cron: str | None
    zone: str | None
    jitter: float
    start_deadline: float | None
    loop: bool
    once: str | None
    overlap: str
    retries: int
    retry_delay: float
    retry_backoff: float
    retry_interrupted: bool
    lock_at_least_for: float
    verbosity: int
    log_format: str
    metrics_addr: str | None
    metrics_file: str | None
    ready_when: str
    on: tuple[tuple[str, str], ...]
    on_timeout: float
    notify: str | None
    notify_secret: str | None
    ping: str | None
    ping_style: str
    ping_log: bool
    reports: bool
    command: tuple[str, ...]

    def __init__(self, **fields: object) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, fields.pop(name))
        if fields:
            raise TypeError(f"no such setting: {', '.join(fields)}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"settings are frozen: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"settings are frozen: {name}")


def check(values: Values, environ: Mapping[str, str]) -> Settings:
    """Make the settings of a call.

    Raises Failure with the line that the user sees: USAGE if the call can't be read or contradicts itself,
    UNUSABLE if this machine can't do it.
    """
    options = values.options
    for option in OPTIONS:
        for rival in option.rivals:
            if options[option.name] and options[rival] not in (None, 0):
                _refuse(f"{_flag(option.name)} and {_flag(rival)} contradict each other: give one of them")
    _check_needed(values)
    settings = Settings(
        lock_address=_text(values, "lock"),
        scheme=_scheme(_text(values, "lock")),
        name=_name(values),
        named=options["name"] is not None,
        ttl=_ttl(values),
        label_pod=_label_pod(values),
        wait=_wait(values),
        conflict_status=_status(values),
        timeout=_timeout(values),
        kill_after=None if options["kill_after"] is None else _seconds(values, "kill_after"),
        stop_signal=_signal_number(_text(values, "stop_signal"), "stop_signal"),
        rewrite=_rewrite(values),
        signal_command_only=bool(options["signal_command_only"]),
        leftovers=_choice(values, "leftovers"),
        **_schedule(values, environ),
        verbosity=-1 if options["quiet"] else int(options["verbose"] or 0),
        log_format=_choice(values, "log_format"),
        **_reports(values),
        command=tuple(values.command),
    )
    _check_slots(settings)
    _check_place(settings, environ, lock_given=options["lock"] is not None)
    return settings


def _check_needed(values: Values) -> None:
    """Refuse options that have no effect, because the options that they need are missing."""
    for option in OPTIONS:
        if (
            option.variable
            and values.options[option.name] not in (None, False)
            and lacking(option, values.options)
        ):
            needed = " or ".join(map(_flag, option.needs))
            _refuse(f"{_flag(option.name)} says nothing without {needed}: leave it out")
    for name in ("wait", "no_wait"):
        if values.options[name] not in (None, False) and _loop(values):
            _refuse(
                f"{_flag(name)} is for one run: in a loop --start-deadline bounds the wait, or give --no-loop"
            )


def _check_slots(settings: Settings) -> None:
    """Refuse durations that contradict each other."""
    every = settings.every
    if every is not None and settings.jitter >= every:
        _refuse(f"--jitter must be less than the interval of --every, {durations.text(every)}")
    if every is not None and settings.lock_at_least_for >= every:
        _refuse(
            f"--lock-at-least-for must be less than the interval of --every, {durations.text(every)}: "
            "the next run would be late"
        )
    if settings.cron is not None:
        from singleton_run.api.record import LONGEST_WORD

        if len(f"cron {settings.cron} {settings.zone}") > LONGEST_WORD:
            _refuse(f"--cron and --tz: together they have more than {LONGEST_WORD} characters: give less")


def _check_place(settings: Settings, environ: Mapping[str, str], *, lock_given: bool) -> None:
    """Raise Failure(UNUSABLE) for a lock that is useless in this place."""
    if not lock_given and environ.get("KUBERNETES_SERVICE_HOST"):
        raise Failure(
            UNUSABLE,
            "in a pod the default lock, a file, would be one per container: say --lock k8s-lease, etcd or "
            "postgres (or --lock file, if that is what you want)",
        )
    if nested(environ, settings.lock_address, settings.name):
        raise Failure(
            UNUSABLE,
            waits_for_itself(settings.name),
        )


def _refuse(message: str) -> NoReturn:
    raise Failure(USAGE, message)


def _flag(name: str) -> str:
    return "/".join(_BY_NAME[name].flags)


def _text(values: Values, name: str) -> str:
    """The given value of an option, or its default."""
    given = values.options[name]
    return str(_BY_NAME[name].default if given is None else given)


def _seconds(values: Values, name: str) -> float:
    try:
        return durations.seconds(_text(values, name))
    except ValueError as error:
        _refuse(f"{_flag(name)}: {error}")


def _choice(values: Values, name: str) -> str:
    text = _text(values, name)
    choices = _BY_NAME[name].choices
    if text not in choices:
        _refuse(f"{_flag(name)}: {text!r} is none of {', '.join(choices)}")
    return text


def _scheme(lock: str) -> str:
    """The part of a lock's address that names the backend."""
    scheme, colon, rest = lock.partition(":")
    if not lock:
        _refuse("--lock is empty: give a backend such as file, or a URL")
    if lock[0] == "/":
        _refuse(
            f"--lock: {redact(lock)!r} is a path: say --lock file://DIRECTORY, and what is locked by --name"
        )
    wrong = [letter for letter in lock if letter < " " or letter == "\x7f"]
    if wrong or lock != lock.strip():
        named = _BLANKS.get(wrong[0], f"the character {wrong[0]!r}") if wrong else "a space at one end"
        _refuse(f"--lock: the address has {named}, which it can't have: take it out")
    if not scheme or not _SCHEME.issuperset(scheme) or (colon and not rest.startswith("//")):
        _refuse(
            f"--lock: {redact(lock)!r} is neither a backend's name nor a URL such as file:///var/lock/jobs"
        )
    try:
        parts(lock)
    except ValueError as error:
        _refuse(f"--lock {redact(lock)}: {error}")
    return scheme


def _name(values: Values) -> str:
    given = values.options["name"]
    if given is None:
        return default_name(values.command)
    try:
        check_name(str(given))
    except ValueError as error:
        _refuse(f"--name: {error}")
    return str(given)


def _ttl(values: Values) -> float:
    ttl = _seconds(values, "ttl")
    if ttl < lease_times.LEAST_TTL:
        _refuse("ttl must be at least 6s, or a server that is slow for a moment would stop the command")
    return ttl


def _label_pod(values: Values) -> str:
    """The label for our pod; empty for none."""
    given = values.options["label_pod"]
    if given is None:
        return ""
    from singleton_run.api.registry import IN_PODS
    from singleton_run.call.pod_label import check_label

    if _scheme(_text(values, "lock")) != IN_PODS:
        _refuse(f"{_flag('label_pod')} is for --lock {IN_PODS} alone")
    try:
        return check_label(str(given))
    except ValueError as error:
        _refuse(f"{_flag('label_pod')}: {error}")


def _wait(values: Values) -> float | None:
    if values.options["no_wait"]:
        return 0.0
    return None if _text(values, "wait") == "forever" else _seconds(values, "wait")


def _timeout(values: Values) -> float | None:
    if values.options["timeout"] is None:
        return None
    timeout = _seconds(values, "timeout")
    if not timeout:
        _refuse(f"{_flag('timeout')} must be more than 0: leave it out for no limit")
    return timeout


def _schedule(values: Values, environ: Mapping[str, str]) -> dict[str, object]:
    """The settings of the group "The schedule"."""
    options = values.options
    cron = _cron(values)
    deadline = None if options["start_deadline"] is None else _seconds(values, "start_deadline")
    if deadline == 0:
        _refuse("--start-deadline must be more than 0: nothing starts at the very moment it is due")
    return {
        "scheduled": cron is not None or options["every"] is not None,
        "every": _every(values),
        "cron": cron,
        "zone": None if cron is None else _zone(values, environ),
        "jitter": _seconds(values, "jitter"),
        "start_deadline": deadline,
        "loop": _loop(values),
        "once": _once(values),
        "overlap": _overlap(values),
        "retries": _count(values, "retries"),
        "retry_delay": _seconds(values, "retry_delay"),
        "retry_backoff": _factor(values, "retry_backoff"),
        "retry_interrupted": bool(options["retry_interrupted"]),
        "lock_at_least_for": _seconds(values, "lock_at_least_for"),
    }


def _reports(values: Values) -> dict[str, object]:
    """The settings of the group "Telling others"."""
    options = values.options
    return {
        "metrics_addr": _metrics_addr(options["metrics_addr"]),
        "metrics_file": options["metrics_file"],
        "ready_when": _choice(values, "ready_when"),
        "on": _hooks(values),
        "on_timeout": _seconds(values, "on_timeout"),
        "notify": _url(values, "notify"),
        "notify_secret": options["notify_secret"],
        "ping": _url(values, "ping"),
        "ping_style": _choice(values, "ping_style"),
        "ping_log": bool(options["ping_log"]),
        "reports": any(options[name] is not None for name in _REPORTS),
    }


def _hooks(values: Values) -> tuple[tuple[str, str], ...]:
    """The commands of --on, each with its event."""
    if values.options["on"] is None:
        return ()
    from singleton_run.call import told_whom

    try:
        return told_whom.hooks(str(values.options["on"]))
    except ValueError as error:
        _refuse(f"{_flag('on')}: {error}")


def _url(values: Values, name: str) -> str | None:
    """The address of an option for http, None if it wasn't given."""
    if values.options[name] is None:
        return None
    from singleton_run.call import told_whom

    try:
        return told_whom.checked_url(str(values.options[name]))
    except ValueError as error:
        _refuse(f"{_flag(name)}: {error}")


def _metrics_addr(given: object) -> str | None:
    """The address, whose form is right: whether we can listen there is seen later."""
    if given is None:
        return None
    text = str(given)
    path = text.removeprefix("unix:")
    host, colon, port = text.rpartition(":")
    if path != text and path and len(path.encode(errors="surrogateescape")) <= _LONGEST_SOCKET:
        return text
    is_port = colon and port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
    is_host = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if path == text and is_port and is_host:
        return text
    _refuse(f"--metrics-addr: {text!r} is no address such as :9090, 127.0.0.1:9090, [::1]:9090, unix:/run/x")


def _loop(values: Values) -> bool:
    slots = any(values.options[name] is not None for name in _SLOTS)
    return slots and not values.options["no_loop"]


def _every(values: Values) -> float | None:
    if values.options["every"] is None:
        return None
    interval = _seconds(values, "every")
    if interval < LEAST_INTERVAL:
        _refuse("--every: the interval must be at least 1s")
    return interval


def _cron(values: Values) -> str | None:
    if values.options["cron"] is None:
        return None
    from singleton_run.schedule import cron_expression

    try:
        return cron_expression.canonical(_text(values, "cron"))
    except ValueError as error:
        _refuse(f"--cron: {error}")


def _zone(values: Values, environ: Mapping[str, str]) -> str:
    from singleton_run.schedule import time_zones

    return time_zones.local(environ) if values.options["tz"] is None else time_zones.find(_text(values, "tz"))


def _overlap(values: Values) -> str:
    text = _text(values, "overlap")
    if text.lower() == "allow":
        _refuse(
            "--overlap: two runs at once are what a lock prevents: for Allow start the command without "
            "singleton-run, or give each its own --name"
        )
    return _OF_CRONJOBS.get(text.lower()) or _choice(values, "overlap")


def _once(values: Values) -> str | None:
    if values.options["once"] is None:
        return None
    try:
        return check_key(_text(values, "once"))
    except ValueError as error:
        _refuse(f"--once: {error}")


def check_key(key: str) -> str:
    """Return the key of --once. Raises ValueError, with one sentence, if it is no legal key."""
    if not key:
        raise ValueError("the key is empty: is the variable set from which it is made?")
    if len(key) > LONGEST_KEY:
        raise ValueError(f"a key of {len(key)} characters is too long: {LONGEST_KEY} are allowed")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError("the key is not UTF-8 text") from None
    return key


def _count(values: Values, name: str) -> int:
    text = _text(values, name)
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= MOST_RETRIES):
        _refuse(f"{_flag(name)}: {text!r} is not a number from 0 to {MOST_RETRIES}")
    return int(text)


def _factor(values: Values, name: str) -> float:
    text = _text(values, name)
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    plain = digits.isascii() and digits.isdigit() and whole and len(text) < 10
    if not (plain and 1 <= float(text) <= MOST_BACKOFF):
        _refuse(f"{_flag(name)}: {text!r} is not a number from 1 to {MOST_BACKOFF:g}, such as 2 or 1.5")
    return float(text)


def _status(values: Values) -> int:
    text = _text(values, "conflict_exit_code")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) < 256):
        _refuse(
            f"{_flag('conflict_exit_code')}: {text!r} is not an exit status, 0 to 255; {HELD} is the default"
        )
    return int(text)


def _rewrite(values: Values) -> dict[int, int]:
    """The FROM:TO pairs, which have commas between them. The last pair for a signal counts."""
    pairs = {}
    for pair in str(values.options["rewrite_signal"] or "").split(","):
        if pair:
            come, colon, go = pair.partition(":")
            if not colon:
                _refuse(f"{_flag('rewrite_signal')}: {pair!r} is not a pair such as TERM:INT")
            to = 0 if go == "0" else _signal_number(go, "rewrite_signal")
            pairs[_signal_number(come, "rewrite_signal")] = to
    return pairs


def _signal_number(text: str, option: str) -> int:
    """A signal by number or name: 15, TERM, SIGTERM, sigterm, RTMIN+1."""
    if text.isascii() and text.isdigit() and len(text) < 4 and 0 < int(text) < _signal.NSIG:
        return int(text)
    name, plus, offset = text.upper().removeprefix("SIG").partition("+")
    number = getattr(_signal, "SIG" + name, None) if text.isascii() and name.isalnum() else None
    if number is None or (plus and (name != "RTMIN" or not offset.isdigit() or len(offset) > 2)):
        _refuse(f"{_flag(option)}: {text!r} is not a signal: TERM is, and so are SIGINT and 9")
    number += int(offset or 0)
    if number >= _signal.NSIG:
        _refuse(f"{_flag(option)}: {text!r} is past the last signal, {_signal.NSIG - 1}")
    return int(number)
