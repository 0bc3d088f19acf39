//! `cluster/replicate`: every file on every child.
