//! Whole-cluster tests live in `tests/`.
