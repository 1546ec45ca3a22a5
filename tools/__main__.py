"""`python -m tools` is `upshim`."""

from tools.cli import main

raise SystemExit(main())
