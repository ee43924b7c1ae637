"""The engine without a screen: the daemon, and the systemd user unit that keeps it running."""
