//! `pull`, as a user meets it, from a hub on the loopback.
