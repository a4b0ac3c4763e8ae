"""From the text of crontabs to jobs, or to a list of everything that is wrong with it."""

from __future__ import annotations

from singleton_run.call import settings
from singleton_run.call.crontab_call import NOT_OF_LINES, OF_THE_PARENT
from singleton_run.call.fast_parser import Values, fill
from singleton_run.call.options import OPTIONS
from singleton_run.crontab import syntax
from singleton_run.crontab.job import CrontabJob
from singleton_run.errors import Failure, one_line
from singleton_run.names import default_name
from singleton_run.schedule import time_zones

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from singleton_run.call.fast_parser import Value
    from singleton_run.call.options import Option
    from singleton_run.crontab.syntax import Line

    Options = dict[str, Value]

SHELL = "/bin/sh"
_ZONES = ("CRON_TZ", "TZ")
_RUNS_ONCE = ("wait", "no_wait", "no_loop", "conflict_exit_code")
_LINES_OWN = ("every", "cron", "once")
_TEXT_OPTIONS = ("value", "values")
_BY_FLAG = {
    flag[2:]: option for option in OPTIONS if option.variable for flag in option.flags if flag[1] == "-"
}
_VARIABLES = frozenset(
    variable for option in OPTIONS if option.name in NOT_OF_LINES for variable in option.variables
)


class Faults(Exception):
    """All that is wrong with a call's crontabs: `sentences`, each with its `FILE:LINE: ` before it."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = list(sentences)


class Call:
    """What holds for all lines: the call's own options and variables, and how the files are to be read.

    `options` are the given ones by name. `user_column` says that a user stands before each command;
    `refuses_user` returns a sentence if a line's user can't be had, else ''. `reboot_once` is the key for
    @reboot.
    """

    __slots__ = ("environ", "options", "reboot_once", "refuses_user", "user_column")

    def __init__(
        self,
        options: Mapping[str, Value],
        environ: Mapping[str, str],
        *,
        user_column: bool = False,
        refuses_user: Callable[[str], str] = lambda _: "",
        reboot_once: str | None = None,
    ) -> None:
        self.options = dict(options)
        self.environ = for_lines(environ)
        self.user_column = user_column
        self.refuses_user = refuses_user
        self.reboot_once = reboot_once


def for_lines(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that don't count for lines."""
    return {name: text for name, text in environ.items() if name not in _VARIABLES}


def read(sources: Sequence[tuple[str, str]], call: Call) -> list[CrontabJob]:
    """The jobs of all files, each a name and its text, in their order.

    Raises Faults with all that is wrong in the files, and Failure for what is wrong with the call itself.
    """
    settings.check(Values(fill({**call.options, "cron": "@daily"}, call.environ), [SHELL]), call.environ)
    jobs: list[CrontabJob] = []
    faults: list[str] = []
    for file, text in sources:
        reader = _Reader(file, call)
        reader.read(text)
        jobs += reader.jobs
        faults += reader.faults
    faults += _same_names(jobs)
    if faults:
        raise Faults(faults)
    return jobs


def _same_names(jobs: Sequence[CrontabJob]) -> list[str]:
    """A fault for each job that has the name of an earlier one."""
    first: dict[str, CrontabJob] = {}
    faults = []
    for job in jobs:
        other = first.setdefault(job.name, job)
        if other is not job and job.named:
            faults.append(f"{job.place}: {other.place} has the name {job.name} too: give each line its own")
        elif other is not job:
            faults.append(
                f"{job.place}: this line is the same as {other.place}: take one out, or give one of them a "
                "name (# singleton-run: name=NAME)"
            )
    return faults


class _Reader:
    """Reads one file. `jobs` and `faults` grow with each line."""

    def __init__(self, file: str, call: Call) -> None:
        self.jobs: list[CrontabJob] = []
        self.faults: list[str] = []
        self._file = file
        self._call = call
        self._number = 0
        self._environment: dict[str, str] = {}
        self._zones: dict[str, str] = {}
        self._own: Options = {}
        self._own_at = 0

    def read(self, text: str) -> None:
        """Read the whole text: the lines end with a newline, the last with or without one."""
        lines = text.split("\n")
        returns = next((number for number, line in enumerate(lines, 1) if line.endswith("\r")), 0)
        if returns:
            from shlex import quote

            self._fault(
                "the lines end with carriage return and newline, as on Windows: the shell would see the "
                f"carriage return. Take them out: sed -i 's/\\r$//' {quote(self._file)}",
                returns,
            )
        for self._number, line in enumerate(lines, 1):
            self._line(line.removesuffix("\r").lstrip(syntax.BLANKS))
        if self._own_at:
            self._fault("no line follows these options: they are for the line below them", self._own_at)

    def _fault(self, sentence: str, number: int | None = None) -> None:
        self.faults.append(f"{self._file}:{number or self._number}: {one_line(sentence)}")

    def _line(self, line: str) -> None:
        try:
            if line.startswith("#"):
                self._comment(line)
            elif line and (pair := syntax.assignment(line)) is not None:
                self._assign(*pair)
            elif line:
                self._job(line)
        except (ValueError, Failure) as error:
            self._fault(str(error).removeprefix("--cron: "))

    def _comment(self, line: str) -> None:
        text = syntax.options_in(line)
        if text is None and syntax.is_nearly_ours(line):
            raise ValueError(
                "this comment is not read as options: write '# singleton-run: name=NAME', in small letters "
                "and with the colon, or begin the comment with another word"
            )
        if text is not None:
            self._own_at = self._own_at or self._number
            self._own.update(_options(text))

    def _assign(self, name: str, value: str) -> None:
        if "\0" in name + value:
            raise ValueError("there is a zero byte, which a variable can't have")
        if name in _ZONES:
            self._zones[name] = value
            if value:
                self._check_zone(name, value)
        if name != "CRON_TZ":
            self._environment[name] = value

    def _check_zone(self, name: str, value: str) -> None:
        if name == "TZ" and self._zones.get("CRON_TZ"):
            return
        try:
            time_zones.local({"TZ": value})
        except Failure:
            del self._zones[name]
            way = "" if name == "CRON_TZ" else ", or give the zone of the schedule by CRON_TZ"
            raise ValueError(
                f"{name} is {value!r}, which is no time zone that is known here: Europe/Berlin is one{way}"
            ) from None

    def _job(self, text: str) -> None:
        own, self._own, self._own_at = self._own, {}, 0
        if "\0" in text:
            raise ValueError("there is a zero byte, which a command can't have")
        line = syntax.line_of(text, user_column=self._call.user_column)
        if line.user is not None and (refused := self._call.refuses_user(line.user)):
            raise ValueError(refused)
        named = own.get("name") is not None
        shell = self._environment.get("SHELL") or SHELL
        options = {**self._call.options, "name": self._name(line), **self._when(line, own), **own}
        environ = {**self._call.environ, **for_lines(self._environment)}
        values = Values(fill(options, environ), [shell, "-c", line.command])
        checked = settings.check(values, self._call.environ)
        place = f"{self._file}:{self._number}"
        self.jobs.append(CrontabJob(line, checked, self._environment, place, named=named))

    def _name(self, line: Line) -> str:
        """The name of a line that is given none: it changes with the line, and with nothing else."""
        base = self._file.rsplit("/", 1)[-1]
        return default_name([base, *line.words])

    def _when(self, line: Line, own: Options) -> Options:
        """The options that stand for the line's schedule. Raises ValueError."""
        word = line.schedule.split()[0].lower()
        if word == syntax.EVERY:
            return {"every": line.schedule.split()[1]}
        if word == syntax.REBOOT:
            if self._call.reboot_once is None:
                raise ValueError(
                    "@reboot would run again on each replica: with --reboot-once KEY it runs once for that "
                    "key, such as a version, on one of them"
                )
            return {"once": self._call.reboot_once}
        zone = self._zones.get("CRON_TZ") or self._zones.get("TZ")
        if zone is None or "tz" in own:
            return {"cron": line.schedule}
        return {"cron": line.schedule, "tz": time_zones.local({"TZ": zone})}


def _options(text: str) -> Options:
    """The options of a comment of ours: `name=digest timeout=10m retry-interrupted`. Raises ValueError."""
    import shlex

    given: Options = {}
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError("a quote is never closed in the options for the line below") from None
    for word in words:
        name, equals, value = word.partition("=")
        option = _option(name)
        if option.name in (*NOT_OF_LINES, *OF_THE_PARENT) and option.name != "name":
            raise ValueError(_not_for_a_line(option))
        if option.kind in _TEXT_OPTIONS and not equals:
            raise ValueError(f"{name} needs a value: write {name}={option.metavar.partition('|')[0]}")
        given[option.name] = _value(option, name, value, equals=bool(equals))
    return given


def _option(name: str) -> Option:
    option = _BY_FLAG.get(name)
    if option is None:
        import difflib

        near = difflib.get_close_matches(name.removeprefix("--").replace("_", "-"), _BY_FLAG, 1)
        hint = f"is {near[0]} meant" if near else "singleton-run --help lists them"
        raise ValueError(f"{name!r} is no option for a line: {hint}{'?' if near else ''}")
    return option


def _not_for_a_line(option: Option) -> str:
    flag = option.flags[-1][2:]
    if option.name in _LINES_OWN:
        return f"{flag} can't be given to a line: its schedule stands before the command"
    if option.name in OF_THE_PARENT:
        return f"{flag} can't be given to a line: write --{flag} into the call, where it is for all lines"
    if option.name in _RUNS_ONCE:
        return f"{flag} can't be given to a line: lines wait for nothing but their times, again and again"
    return f"{flag} can't be given to a line: it is for all of them, or for none"


def _value(option: Option, name: str, text: str, *, equals: bool) -> Value:
    """A value that the options' table takes: as `fill` makes it of a variable. Raises ValueError."""
    if option.kind in _TEXT_OPTIONS:
        return text
    if not equals:
        return True if option.kind == "flag" else 1
    try:
        return fill({}, {option.variable: text})[option.name]
    except ValueError:
        raise ValueError(f"{name} is {text!r}: write {name} or leave it out") from None
