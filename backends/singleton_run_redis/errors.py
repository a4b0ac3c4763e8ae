"""The server's errors by kind, which the code that each begins with decides, never the text."""

from __future__ import annotations

from singleton_run.errors import DENIED, UNUSABLE, Failure, Refused, Unavailable

NO_SCRIPT = "NOSCRIPT"
# After these the connection is made anew, because the name may lead to another server by then.
MOVED_ON = ("READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "CLUSTERDOWN")

RIGHTS = (
    "~singleton-run:* &singleton-run:* +select +time +eval +evalsha +scan +subscribe +client|tracking "
    "+publish +get +set +del +pexpire +pttl +hget +hmget +hset +hdel +zadd +zrange +zrank +zrem +zscore"
)
"""What a user must be allowed, as ACL SETUSER takes it. Nothing else is needed."""
_LOGIN = "check user and password (in the URL, REDIS_URL or REDISCLI_AUTH)"
_CLUSTER = "it is a cluster: say redis+cluster://, or rediss+cluster:// for TLS"
_ADVICE = {
    "READONLY": "a replica can't lock, or a fail-over is under way: name the primary",
    "MASTERDOWN": "it is a replica that has lost its primary: name the primary",
    "LOADING": "it reads its data from the disk, and serves soon",
    "OOM": "raise its maxmemory, or give the locks a server of their own, with maxmemory-policy noeviction",
    "NOREPLICAS": "it takes no writes without enough replicas (min-replicas-to-write)",
    "MISCONF": "it takes no writes, because it can't save to its disk: see its log",
    "BUSY": "another client's script runs there for too long (SCRIPT KILL)",
    "CLUSTERDOWN": "the cluster is incomplete: see CLUSTER INFO",
    "TRYAGAIN": "the cluster moves the lock's keys at this moment",
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "NOPERM": f"have an administrator run: ACL SETUSER USER {RIGHTS}",
    "NOPROTO": "Redis 6.0 or later is needed, or Valkey",
    "WRONGTYPE": "a key of the lock (docs/redis.md) is another program's: delete it, or take another name",
    "CROSSSLOT": _CLUSTER,
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
}
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM")
_UNUSABLE = ("NOPROTO", "WRONGTYPE", "CROSSSLOT", "MOVED", "ASK")
_RENAMED = (
    "Redis 6.0 or later is needed, or Valkey, without renamed commands (for Sentinels say redis+sentinel://)"
)
# The only errors that have no code of their own. Their texts have been the same since Redis 3.
_FULL = "max number of clients reached"
_TEXTS = {
    _FULL: "raise its maxclients",
    "unknown command": _RENAMED,
    "ommand called from script": _RENAMED,
    "ommand passed to": _RENAMED,  # to acl_check_cmd, by which doctor asks
    "DB index is out of range": "give a number that the server has (databases)",
    "SELECT is not allowed in cluster mode": _CLUSTER,
    "invalid password": _LOGIN,
    "AUTH <password> called without any password": _LOGIN,
}


class ServerError(Exception):
    """An error that the server answered: `code` is the word that it begins with, `text` is what follows."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text

    def failure(self) -> Failure:
        """The contract's error for it."""
        advice = _ADVICE.get(self.code, "")
        for text, hint in _TEXTS.items() if self.code == "ERR" else ():
            if text in self.text:
                advice = hint
        line = f"redis: {self}{f': {advice}' if advice else ''}"
        if self.code in _DENIED or advice == _LOGIN:
            return Refused(line, DENIED)
        if self.code in _UNUSABLE or (self.code == "ERR" and _FULL not in self.text):
            return Refused(line, UNUSABLE)
        return Unavailable(line)


def server_error(text: str) -> ServerError:
    """The error in an answer's text.

    Before Redis 7 an error within a script has its code in the middle: `ERR Error running script (call to
    f_…): @user_script:9: -OOM command not allowed …`. There it may also be `@user_script: 9: -OOM …`.
    """
    if text.startswith("ERR Error running script"):
        inner = text.partition(": -")[2]
        text = inner or text
    code, _, rest = text.partition(" ")
    # A script's place follows the text: of no use for a user.
    return ServerError(code, rest.partition(" script: ")[0].strip().rstrip("."))
