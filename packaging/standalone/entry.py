"""The executable's main module. main.c has already done for Ctrl-C what the wheel's script does."""

from singleton_run.__main__ import main

raise SystemExit(main())
