"""Where the executable begins. What the wheel's script does for Ctrl-C, main.c has done."""

from singleton_run.__main__ import main

raise SystemExit(main())
