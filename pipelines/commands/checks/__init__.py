"""Commands about checks of a champion: one now, or one on a clock. They change no weights."""
