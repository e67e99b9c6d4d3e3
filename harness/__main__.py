from harness import ending

ending.prepare()

from harness.cli import main  # noqa: E402

ending.end(main())
