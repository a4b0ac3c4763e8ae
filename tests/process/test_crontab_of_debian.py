"""Crontabs as people write them: what Debian's cron makes of them, and what we do.

cron itself is run: its lines are changed to @reboot, which it runs at once, and its shell to a program that
writes down what it is given. The times of the lines are compared elsewhere, with a model of that cron.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.crontab.reading import Call, Faults, read
from tests.support.harness import LIMIT, until

if TYPE_CHECKING:
    from pathlib import Path

    from singleton_run.crontab.job import CrontabJob

NEEDS = ["cron", "crontab", "unshare", "mount"]
TABLES = {
    "a server of Django": """\
PATH=/opt/app/.venv/bin:/usr/local/bin:/usr/bin:/bin
DJANGO_SETTINGS_MODULE = app.settings.production
MAILTO=""

# m h dom mon dow   command
*/5 * * * *     cd /opt/app && python manage.py send_queued >> /var/log/app/queued.log 2>&1
17 3 * * *      cd /opt/app && python manage.py clearsessions
0 6 1,15 * *    cd /opt/app && python manage.py invoice --month "$(date +\\%Y-\\%m)"
""",
    "dumps with the date in their name": """\
SHELL=/bin/bash
MAILTO='ops@example.org'
0 2 * * 1-5 pg_dump -Fc app | gzip > "/backup/app-$(date +\\%F-\\%H\\%M).dump.gz" && touch /backup/.ok
30 2 * * sun find /backup -name '*.gz' -mtime +30 -delete # a month
15 */4 * jan-jun * test $(( $(date +\\%s) / 86400 \\% 2 )) -eq 0 && /usr/local/bin/every-other-day
""",
    "texts on standard input": """\
0 17 * * 5 mail -s "It's Friday" team%Hello,%%see you on Monday.%-- %the office
5 4 * * * sqlite3 /var/lib/app.db%PRAGMA optimize;%DELETE FROM log WHERE at < date('now', '-90 days');
6 4 * * * cat%100\\% of it%
7 4 * * * cat -n%
8 4 * * * printf 'a\\\\%s\\n'
9 4 * * * cat -e%back\\slash \\\\ at the end \\
""",
    "quotes and blanks around what is set": """\
 GREETING = " two  words"
'ODD NAME'=x y
PLAIN = it's  so\t
EQUALS=a=b=c
COMMENT=value # not a comment
DOLLAR=$HOME/bin
EMPTY=''
\t@daily\techo   "$GREETING"   kept  \t
""",
    "what is set counts from there on": """\
@hourly first
A=1
@hourly second
A=2
B=3
@hourly third
""",
    "assignments that are no assignments": """\
0 1 * * * A=b C="d e" run --now
1 1 * * * LANG=C.UTF-8 TZ=Asia/Tokyo date
2 1 * * * ( cd / && run-parts --report /etc/cron.daily )
3 1 * * * [ -x /usr/bin/job ] && if [ ! -d /run/systemd/system ]; then /usr/bin/job; fi
""",
}
SYSTEM_TABLES = {
    "the system's own": """\
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
@monthly root echo %in
*/10 * * * * root sleep $((RANDOM \\% 60)); /usr/local/bin/renew --quiet
""",
}
REFUSED = {
    "a minute that is none": "60 * * * * x\n",
    "four fields": "* * * * x\n",
    "a step without a range": "5/15 * * * * x\n",
    "a word that is none": "@fortnightly x\n",
    "text": "this is no crontab\n",
    "a quote that is never closed": "A='b\n",
    "more after a quote": "A='b' c\n",
}


@pytest.fixture(scope="module", autouse=True)
def cron() -> None:
    for program in NEEDS:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: apt-get install cron")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start cron: sudo make test ARGS=tests/process/test_crontab_of_debian.py")


def _ours(text: str, *, system: bool) -> list[CrontabJob]:
    return read([("crontab", text)], Call({"lock": "file"}, {}, user_column=system))


def _at_once(text: str, shell: Path) -> str:
    """The same lines, run when cron starts by a shell that only writes down what it is given."""
    lines = []
    for line in text.splitlines(keepends=True):
        changed = re.sub(r"^\s*(@\w+|(\S+\s+){4}\S+)(?=\s+\S)", "@reboot", line)
        is_job = re.match(r"\s*[\d*@]", line)
        lines.append(changed if is_job else "" if line.lstrip().startswith("SHELL") else line)
    return "".join([f"SHELL={shell}\n", *lines])


RECORDER = """\
#!{python} -IS
import json, os, sys
entry = {{"command": sys.argv[2], "stdin": sys.stdin.read(), "environ": dict(os.environ)}}
with open("{file}", "a") as file:
    file.write(json.dumps(entry) + "\\n")
"""
ISOLATED = """\
set -e
mount -t tmpfs none /run; mount -t tmpfs none /etc/cron.d; mount -t tmpfs none /var/spool/cron
: > /run/empty; mount --bind /run/empty /etc/crontab
mkdir -p /var/spool/cron/crontabs; chmod 1730 /var/spool/cron/crontabs
install -m 600 "$1" "$2"
exec cron -f
"""


def _debians(text: str, directory: Path, *, system: bool) -> list[dict[str, Any]]:
    """What cron runs of that crontab, in a name space of its own."""
    entries, shell, table = (directory / name for name in ("entries", "shell", "table"))
    shell.write_text(RECORDER.format(python=sys.executable, file=entries))
    shell.chmod(0o755)
    table.write_text(_at_once(text, shell))
    place = "/etc/cron.d/table" if system else "/var/spool/cron/crontabs/root"
    expected = len(_ours(text, system=system))
    argv = ["unshare", "--mount", "sh", "-c", ISOLATED, "sh", str(table), place]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        try:

            def all_lines() -> list[str]:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                text = entries.read_text() if entries.exists() else ""
                lines = text.splitlines()[: text.count("\n")]  # the last one may be half written
                return lines if len(lines) >= expected else []

            lines = until(all_lines, f"cron to run {expected} lines")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)
    return [json.loads(line) for line in lines]


def _compare(text: str, directory: Path, *, system: bool) -> None:
    found = {entry["command"].strip(): entry for entry in _debians(text, directory, system=system)}
    ours = _ours(text, system=system)
    assert {job.command.strip() for job in ours} == set(found)
    for job in ours:
        entry = found[job.command.strip()]
        assert (job.stdin or "") == entry["stdin"]
        variables = {name: value for name, value in job.environment.items() if name != "SHELL"}
        assert {name: entry["environ"].get(name) for name in variables} == variables
        named = set(re.findall(r"^([A-Z])=", text, re.MULTILINE))
        assert {name for name in named if name in entry["environ"]} <= set(variables)


@pytest.mark.parametrize("name", TABLES)
def test_commands_input_and_variables_are_those_of_cron(name: str, tmp_path: Path) -> None:
    _compare(TABLES[name], tmp_path, system=False)
    assert _accepts(TABLES[name], tmp_path)


@pytest.mark.parametrize("name", SYSTEM_TABLES)
def test_with_a_user_s_column_too(name: str, tmp_path: Path) -> None:
    _compare(SYSTEM_TABLES[name], tmp_path, system=True)


def _accepts(text: str, directory: Path) -> bool:
    """Whether Debian's crontab would install that."""
    table = directory / "asked"
    table.write_text(text, newline="")
    done = subprocess.run(["crontab", "-n", table], capture_output=True, timeout=LIMIT, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cron_refuses_is_refused(name: str, tmp_path: Path) -> None:
    assert not _accepts(REFUSED[name], tmp_path)
    with pytest.raises(Faults):
        _ours(REFUSED[name], system=False)


def test_where_we_differ_from_cron(tmp_path: Path) -> None:
    """An empty value and a last line without its end are taken, and carriage returns refused.

    A blank at the end of a quoted value stays, as crontab(5) says; cron takes it away.
    """
    assert _ours("A='b '\n* * * * * x\n", system=False)[0].environment == {"A": "b "}
    (entry,) = _debians("A='b '\n* * * * * x\n", tmp_path, system=False)
    assert entry["environ"]["A"] == "b"
    assert not _accepts("MAILTO=\n* * * * * x\n", tmp_path)
    assert _ours("MAILTO=\n* * * * * x\n", system=False)[0].environment == {"MAILTO": ""}
    assert not _accepts("* * * * * x", tmp_path)
    assert len(_ours("* * * * * x", system=False)) == 1
    assert _accepts("* * * * * x\r\n", tmp_path)
    with pytest.raises(Faults, match="carriage return"):
        _ours("* * * * * x\r\n", system=False)
    assert _accepts("5-1 * * * * x\n", tmp_path), "which never runs"
    with pytest.raises(Faults, match="goes backwards"):
        _ours("5-1 * * * * x\n", system=False)
