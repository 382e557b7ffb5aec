"""A loaded run at work: lists for everyone in a file, live sessions, a service."""
