"""Where the executable begins: what the wheel's script does."""

import _signal

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C while we start is no traceback

from singleton_run.__main__ import main

raise SystemExit(main())
