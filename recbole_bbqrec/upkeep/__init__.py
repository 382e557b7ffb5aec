"""Keep a finished run in use: new items."""
