//! The GlusterFS programs, both sides of each.
