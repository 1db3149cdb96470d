"""From API objects to what is shown: pure functions, the time an argument."""
