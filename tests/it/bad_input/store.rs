//! Stores that are damaged, newer, full or in use.
