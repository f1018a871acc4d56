"""``python -m semanticface`` is the ``semanticface`` command."""

import sys

from semanticface.cli.main import main

sys.exit(main())
